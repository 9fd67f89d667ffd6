"""What goes over the wire: bodies that come in, and objects that go out."""
