"""The server: the REST API, a status page, and the process that serves both."""
