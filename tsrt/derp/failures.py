"""
How a relay can fail, besides what L{tsrt.errors} already names.
"""

from __future__ import annotations

from tsrt.errors import ProtocolError, RelayError


class RelayUnreachable(RelayError):
    """No server of a region could be connected to."""

    advice = "Check that this machine may make TLS connections to the relay."


class RelayRefused(RelayError):
    """Something answered, but it does not want to be a relay for us."""


class RelayTimeout(RelayError, TimeoutError):
    """A relay did not do in time what it has to do."""


class RelayLost(RelayError):
    """The connection with a relay has ended."""


class RelayProtocolError(RelayError, ProtocolError):
    """A relay sent what it must not send."""
