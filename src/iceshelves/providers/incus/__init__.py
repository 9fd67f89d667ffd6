"""One thin asynchronous client for Incus and LXD, and the capabilities built on it."""
