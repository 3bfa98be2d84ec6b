"""A whole tailnet for tests: simulated internet, control, DERP and STUN servers."""
