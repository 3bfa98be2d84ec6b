"""Control-plane documents as typed values."""
