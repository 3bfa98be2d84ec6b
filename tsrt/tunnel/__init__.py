"""WireGuard as pure machines."""
