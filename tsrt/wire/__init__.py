"""Wire formats: bytes to values and back, no state."""
