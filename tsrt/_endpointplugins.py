"""
The string parsers that Twisted's plugin search finds.

Twisted imports every plugin module whenever its plugin cache is cold, so this
module imports nothing of tsrt until a string with our prefix is parsed.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IReactorCore,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class TailnetClientParser:
    """Parses C{tailnet:host=web:port=80} and C{tailnet:web:80}."""

    prefix = "tailnet"

    def parseStreamClient(  # type: ignore[override]  # mypy-zope counts the reactor twice
        self, reactor: IReactorCore, *args: str, **kwargs: str
    ) -> IStreamClientEndpoint:
        """Make the client endpoint that the string describes."""
        from tsrt.endpointstrings import parseClient

        return parseClient(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class TailnetServerParser:
    """Parses C{tailnet:80} and C{tailnet:port=80:interface=v4}."""

    prefix = "tailnet"

    def parseStreamServer(  # type: ignore[override]  # mypy-zope counts the reactor twice
        self, reactor: IReactorCore, *args: str, **kwargs: str
    ) -> IStreamServerEndpoint:
        """Make the server endpoint that the string describes."""
        from tsrt.endpointstrings import parseServer

        return parseServer(reactor, *args, **kwargs)
