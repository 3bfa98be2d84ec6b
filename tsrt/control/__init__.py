"""The coordination server."""
