"""How a hypervisor's API is reached: over its unix socket, TLS, a tunnel through SSH, or an agent's streams.

Each way is one small value that says where (:mod:`~iceshelves.connections.values`) and one
:class:`~iceshelves.connections.transport.Transport` that gets there; nothing above knows the difference.
"""
