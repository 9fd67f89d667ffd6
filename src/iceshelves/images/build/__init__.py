"""Building an appliance's image, in a process of its own that holds no credentials.

``python -m iceshelves.images.build`` reads a job on its standard input and writes events on its standard
output; :mod:`launch` is the asynchronous side of that pipe.  Within the process:

- :mod:`isolation` gives it namespaces of its own, so that mounts and processes end with it;
- :mod:`stages` goes through the stages: lock, base, packages, files, actions, services, normalise, secrets,
  pack;
- only :mod:`resolving` and :mod:`debs` use the network, to decide on packages and to fetch them.
"""
