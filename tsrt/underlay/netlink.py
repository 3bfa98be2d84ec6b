"""
What the Linux kernel tells of the network, at once and without being asked, and
which way it sends packets.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import isTailscaleAddress
from tsrt.path.local import isLinkLocal, isLoopback
from tsrt.underlay.linkstate import DefaultRoute
from tsrt.wire import rtnetlink

_log = Logger(namespace="tsrt.underlay")

READS = 64
"""Datagrams that are read in one turn of the reactor."""

_LARGEST = 65536

_SOMEWHERE = {
    4: bytes((8, 8, 8, 8)),
    6: bytes.fromhex("20014860486000000000000000008888"),
}

MakeSocket = Callable[[], socket.socket]
"""Makes a netlink socket, not yet bound."""


def makeSocket() -> socket.socket:
    """
    A netlink socket for routes.

    @raise OSError: when the system has none, or gives none to us.
    """
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, "there is no netlink on this system")
    sock = socket.socket(family, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.setblocking(False)
    return sock


def isRelevant(message: rtnetlink.Message) -> bool:
    """
    Whether a message may mean that packets go another way.

    On a machine that is a router, or runs containers, most do not.
    """
    if isinstance(message, rtnetlink.AddressMessage):
        address = message.address
        return not (
            isLinkLocal(address) or isLoopback(address) or isTailscaleAddress(address)
        )
    if isinstance(message, rtnetlink.RouteMessage):
        # Some VPNs put two halves in front of the default route.
        return message.prefixLength <= 1
    if isinstance(message, rtnetlink.LinkMessage):
        return not message.flags & rtnetlink.IFF_LOOPBACK
    return False


@implementer(IReadDescriptor)
class NetlinkWatcher:
    """
    Listens to the kernel.

    @ivar isWatching: whether it does; a socket that fails is given up.
    """

    def __init__(
        self,
        reactor: IReactorFDSet,
        onEvent: Callable[[], object],
        *,
        makeSocket: MakeSocket = makeSocket,
    ) -> None:
        """
        @param onEvent: called when something may have changed, once for each
            turn of the reactor.
        @param makeSocket: for tests.
        """
        self._reactor = reactor
        self._onEvent = onEvent
        self._makeSocket = makeSocket
        self._socket: socket.socket | None = None

    @property
    def isWatching(self) -> bool:
        """Whether the kernel is being listened to."""
        return self._socket is not None

    def start(self) -> bool:
        """
        Begin to listen.

        @return: whether the system lets us.
        """
        if self._socket is not None:
            return True
        try:
            sock = self._makeSocket()
        except OSError as error:
            _log.debug("the kernel tells no news of the network: {e}", e=error)
            return False
        try:
            sock.bind((0, rtnetlink.GROUPS))
        except OSError as error:
            _log.debug("the kernel tells no news of the network: {e}", e=error)
            sock.close()
            return False
        self._socket = sock
        self._reactor.addReader(self)
        return True

    def stop(self) -> None:
        """Listen no more."""
        sock, self._socket = self._socket, None
        if sock is not None:
            self._reactor.removeReader(self)
            sock.close()

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{IReadDescriptor}."""
        return "netlink"

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}: the reactor gives up on the socket."""
        self.stop()

    def doRead(self) -> None:
        """See L{IReadDescriptor}."""
        sock = self._socket
        if sock is None:
            return
        isNews = False
        for _ in range(READS):
            try:
                data, sender = sock.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                # Whatever it is, something may have been missed.
                isNews = True
                if error.errno == errno.ENOBUFS:
                    continue
                _log.debug("the kernel tells no more news: {e}", e=error)
                self.stop()
                break
            if sender[0] != 0:
                # Other processes may send to us; only the kernel is believed.
                continue
            if not isNews:
                messages = rtnetlink.parseMessages(data)
                isNews = any(isRelevant(message) for _, message in messages)
        if isNews:
            self._onEvent()


def kernelRoutes(
    makeSocket: MakeSocket = makeSocket,
    nameOf: Callable[[int], str] = socket.if_indextoname,
) -> tuple[DefaultRoute, ...]:
    """
    The ways by which packets leave for the internet, one for each family that
    has one.

    The kernel answers at once; nothing is sent.

    @raise OSError: when it is not to be asked.
    """
    with makeSocket() as sock:
        sock.bind((0, 0))
        found = []
        for family, destination in _SOMEWHERE.items():
            route = _ask(sock, destination, family)
            if route is None or not route.isUnicast:
                continue
            name = ""
            with suppress(OSError):
                name = nameOf(route.interface)
            found.append(
                DefaultRoute(
                    family, name or str(route.interface), route.gateway, route.source
                )
            )
        return tuple(found)


def _ask(
    sock: socket.socket, destination: bytes, sequence: int
) -> rtnetlink.RouteMessage | None:
    sock.sendto(rtnetlink.buildRouteRequest(destination, sequence), (0, 0))
    for _ in range(READS):
        data, sender = sock.recvfrom(_LARGEST)
        if sender[0] != 0:
            continue
        for answered, message in rtnetlink.parseMessages(data):
            if answered != sequence:
                continue
            return message if isinstance(message, rtnetlink.RouteMessage) else None
    raise OSError(errno.ETIMEDOUT, "the kernel does not say where packets go")


def preferredSources() -> tuple[DefaultRoute, ...]:
    """
    The same for any other system, as far as it can be known: the address that
    packets to the internet would come from.

    A UDP socket that is connected sends nothing.
    """
    found = []
    for family, name, target in (
        (4, socket.AF_INET, "8.8.8.8"),
        (6, socket.AF_INET6, "2001:4860:4860::8888"),
    ):
        try:
            with socket.socket(name, socket.SOCK_DGRAM) as sock:
                sock.connect((target, 53))
                text = str(sock.getsockname()[0])
                source = socket.inet_pton(name, text.partition("%")[0])
        except OSError:
            continue
        if any(source):
            found.append(DefaultRoute(family, "", None, source))
    return tuple(found)
