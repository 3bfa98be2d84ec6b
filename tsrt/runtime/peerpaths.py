"""How packets to each peer go at this moment, and why, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tsrt.addresses import formatAddress
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.path.status import PathStatus


@frozen(kw_only=True)
class PeerPath:
    """
    How packets to one peer go.

    @ivar name: the peer's MagicDNS name.
    @ivar address: its first tailnet address.
    @ivar path: the way in words, as pings tell it: C{direct 192.0.2.1:41641},
        C{peer-relay 192.0.2.1:7777:vni:5}, C{relay fra}, C{no path}.
    @ivar why: why it is what it is, in words.
    @ivar since: since when that is so.
    @ivar latency: seconds of the round trip, directly or by a peer relay;
        C{None} by a relay (DERP).
    """

    name: str
    address: str
    path: str
    why: str
    since: datetime
    latency: float | None

    @property
    def isDirect(self) -> bool:
        """Whether no relay carries the packets."""
        return self.path.startswith("direct ")


class PeerPaths(Mapping[str, PeerPath]):
    """
    The paths to the peers, by MagicDNS name.

    It is a view: what it tells is as of the time of reading.  It lists the
    peers with which packets were exchanged, and finds any other by its name
    (short or in full) or tailnet address.
    """

    def __init__(
        self,
        *,
        netmap: Callable[[], NetworkMap],
        resolve: Callable[[str], Node | None],
        describe: Callable[[bytes], str],
        status: Callable[[bytes], PathStatus | None],
        isInUse: Callable[[bytes], bool],
        age: Callable[[float], float],
        wallclock: Callable[[], float],
    ) -> None:
        """
        @param netmap: gives the netmap at present.
        @param resolve: finds a peer by what people call it.
        @param describe: tells the way to a packed tailnet address, in words.
        @param status: tells of the path to a peer, by its raw node key.
        @param isInUse: whether packets were exchanged with a peer, by the same.
        @param age: the seconds since a time of the path machine.
        @param wallclock: the seconds since 1970.
        """
        self._netmap = netmap
        self._resolve = resolve
        self._describe = describe
        self._status = status
        self._isInUse = isInUse
        self._age = age
        self._wallclock = wallclock

    def __repr__(self) -> str:
        return f"<PeerPaths {len(self)} in use>"

    def __len__(self) -> int:
        """With how many peers packets were exchanged."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[str]:
        """The names of the peers with which packets were exchanged."""
        for node in self._netmap().peers:
            if self._isInUse(node.key.raw):
                yield node.name

    def __getitem__(self, host: str) -> PeerPath:
        """The path to a peer, whether it is in use or not."""
        node = self._resolve(host)
        status = None if node is None else self._status(node.key.raw)
        if node is None or status is None:
            raise KeyError(host)
        packed = node.packedAddresses()[0]
        since = self._wallclock() - self._age(status.since)
        return PeerPath(
            name=node.name,
            address=formatAddress(packed),
            path=self._describe(packed),
            why=status.why,
            since=datetime.fromtimestamp(since, UTC),
            latency=status.latency if status.isTrusted else None,
        )


NO_PATHS: Mapping[str, PeerPath] = MappingProxyType({})
"""What a node that does not run has."""

TELL_INTERVAL = 1.0
"""Least seconds between two notices of changed paths: in a large tailnet some
path changes all the time."""


class PathReporter(Service):
    """Keeps the paths in the node's status while the node runs."""

    name = "path reporter"

    def __init__(
        self,
        reactor: IReactorTime,
        view: Callable[[], PeerPaths],
        publish: Callable[[Mapping[str, PeerPath]], object],
    ) -> None:
        """
        @param view: makes a view of the paths.
        @param publish: takes a new one, when there is news to be seen in it.
        """
        self._reactor = reactor
        self._view = view
        self._publish = publish
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Publish a view."""
        super().startService()
        self._tell()

    def stopService(self) -> None:
        """There are no paths any more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._publish(NO_PATHS)

    def changed(self) -> None:
        """Some path became another one: tell soon."""
        if self.running and self._call is None:
            self._call = self._reactor.callLater(TELL_INTERVAL, self._tell)

    def _tell(self) -> None:
        self._call = None
        self._publish(self._view())
