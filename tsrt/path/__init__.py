"""How to reach each peer."""
