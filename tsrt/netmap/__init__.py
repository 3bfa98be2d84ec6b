"""What the tailnet looks like now."""
