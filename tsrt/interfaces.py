"""
The seams of tsrt as zope interfaces.

Only declarations live here, so that any Twisted-side module may import them.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import Attribute, Interface


class IStateStore(Interface):
    """
    Where a node keeps what must survive a restart.

    All calls are synchronous and small; C{write} returns only when the data
    would survive a crash.  Failures raise L{tsrt.errors.StateError}.
    """

    isPersistent: bool = Attribute("whether a restart finds what was written")

    def open() -> None:
        """Take the lock of the store and check that it is usable."""

    def read(name: str) -> bytes | None:
        """Return what was written under C{name}, or C{None}."""

    def write(name: str, data: bytes) -> None:
        """Replace what is kept under C{name}, atomically."""

    def delete(name: str) -> None:
        """Forget C{name}; unknown names are no error."""

    def close() -> None:
        """Release the lock; the store may be opened again."""


class IStreamDialer(Interface):
    """
    Makes outgoing stream connections on the real network.

    The one place that knows of upstream proxies and of extra CA files; the
    control client and the relay client both dial through it.
    """

    trustRoot: object = Attribute(
        "the trust root for L{twisted.internet.ssl.optionsForClientTLS}"
    )

    def endpoint(
        host: str,
        port: int,
        connectionCreator: object | None = None,
        address: str | None = None,
    ) -> IStreamClientEndpoint:
        """
        An endpoint that leads to C{host:port}.

        @param host: a DNS name or an address literal.
        @param connectionCreator: an C{IOpenSSLClientConnectionCreator}; when
            given, the connection is TLS made with it.
        @param address: an address literal to connect to instead of resolving
            C{host}.
        """


class IReadListener(Interface):
    """
    A protocol that handles what came in one read as a whole.

    Without a transport that tells it must do without.
    """

    def readOver() -> None:
        """All that was read at once has been given to C{dataReceived}."""


class ILoginPrompt(Interface):
    """Shows a person what they have to do to let the node in."""

    def loginRequired(url: str) -> None:
        """Show C{url}; called once for each new URL."""

    def approvalRequired() -> None:
        """Say that an administrator has to approve the machine."""

    def loginCompleted() -> None:
        """Say that the node is in; called once after a prompt was shown."""


class ILinkMonitor(Interface):
    """
    Notices that this machine is on another network, or was asleep.

    Tells each L{tsrt.underlay.linkstate.LinkChange} to the callable that it was
    made with.
    """

    state: object = Attribute(
        "how the machine is connected: a L{tsrt.underlay.linkstate.LinkState}"
    )

    def startService() -> None:
        """Take the present state for granted and watch for changes."""

    def stopService() -> None:
        """Watch no more."""

    def look() -> None:
        """Look at once; tells of a change before it returns."""


class IHostPinger(Interface):
    """Sends echo requests of this host to the real network."""

    def ping(address: str, payload: bytes) -> Deferred[None]:
        """
        Ping an IPv4 address.

        @param payload: what the request carries.
        @return: fires when the answer has come; fails with
            L{tsrt.failures.TailnetTimeout}, or with L{tsrt.errors.NotSupported}
            where this host lets nobody ping.
        """

    def stop() -> None:
        """Give up what is under way; it may ping again."""
