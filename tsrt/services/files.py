"""Serving a directory on a tailnet port, and logging who asked for what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import File

from tsrt.errors import ConfigError, TSRTError
from tsrt.netmap.whois import WhoIs
from tsrt.services.listening import ListeningService

if TYPE_CHECKING:
    from twisted.web.http import Request

_log = Logger(namespace="tsrt.files")


def _plain(text: bytes) -> str:
    """Text with everything but printable ASCII escaped."""
    return ascii(text.decode("latin-1"))[1:-1]


class IdentifyingSite(Site):
    """A site whose log names the tailnet node and user behind each request."""

    def __init__(
        self,
        resource: Resource,
        reactor: IReactorTime,
        whois: Callable[[str], WhoIs],
    ) -> None:
        super().__init__(resource, reactor=reactor)
        self._whois = whois

    def log(self, request: Request) -> None:
        """Write one line for a finished request."""
        address = getattr(request.getClientAddress(), "host", "")
        try:
            caller = self._whois(address)
            who = f"{caller.node.name.rstrip('.')} ({caller.user or 'no user'})"
        except TSRTError:
            who = "unknown node"
        _log.info(
            "{who} at {address}: {method} {path} {code}",
            who=who,
            address=address,
            # Whatever a client sends must not steer the reader's terminal.
            method=_plain(request.method),
            path=_plain(request.path),
            code=request.code,
        )


class _Files(File):
    """Files whose names clients may get wrong without filling the log."""

    def getChild(self, path: bytes | str, request: Request) -> Resource:
        """See L{File}; names that no file can have are not found."""
        name = path if isinstance(path, bytes) else path.encode("utf-8", "replace")
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return self.childNotFound
        if b"\0" in name:
            return self.childNotFound
        child: Resource = super().getChild(path, request)
        return child


class FilesService(ListeningService):
    """Serves the files below a directory by HTTP."""

    def __init__(
        self,
        reactor: IReactorTime,
        listenOn: IStreamServerEndpoint,
        directory: Path,
        whois: Callable[[str], WhoIs],
    ) -> None:
        """
        @param whois: tells who a tailnet address belongs to.
        @raise ConfigError: there is no such directory.
        """
        if not directory.is_dir():
            raise ConfigError(f"{directory} is not a directory")
        site = IdentifyingSite(_Files(str(directory)), reactor, whois)
        site.noisy = False
        super().__init__(listenOn, site)
