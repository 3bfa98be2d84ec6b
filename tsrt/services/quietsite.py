"""A web site that programs look at again and again."""

from __future__ import annotations

from twisted.web.http import Request
from twisted.web.server import Site


class QuietSite(Site):
    """Keeps no log of who asked for what."""

    noisy = False

    def log(self, request: Request) -> None:
        """See L{Site}."""
