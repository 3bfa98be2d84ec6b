"""Carrying the flows of peers on to real networks: subnet router and exit node."""
