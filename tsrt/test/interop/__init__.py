"""Tests against programs that we did not write: Tailscale, Headscale, DERP."""
