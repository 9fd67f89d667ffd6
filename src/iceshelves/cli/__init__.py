"""The command line: a client of the public API, and the local commands for eggs and for the server."""
