"""Optional services on top of a node."""
