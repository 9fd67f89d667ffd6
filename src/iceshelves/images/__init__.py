"""Images: built, packed, described, published.  Formats and files only; nothing here knows a server."""
