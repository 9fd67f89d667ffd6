"""The REST API, one module a subject.  A handler translates: request to use case, result to answer."""
