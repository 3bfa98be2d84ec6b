"""Thin, typed calls into the cryptographic libraries."""
