"""
All relays of a tailnet: which one is home, which one leads to whom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from attrs import frozen
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.derp.protocol import PING_TIMEOUT
from tsrt.derp.region import RegionService, RegionStatus
from tsrt.errors import RelayError
from tsrt.interfaces import IStreamDialer
from tsrt.keys import NodeKey
from tsrt.tailcfg import DERPMap, DERPRegion

_log = Logger(namespace="tsrt.derp")

OBSERVED_LIMIT = 16384
"""Peers of which it is remembered where they were heard last."""


def _ignore(*arguments: object) -> None:
    """What happens to events that nobody asked for."""


@frozen(kw_only=True)
class RelayEvents:
    """
    What a L{RelayPool} tells, each a callable.

    @ivar onPackets: C{(region, source, packets)}: packets from the peer with
        the raw node key C{source}, all those of one read at once.
    @ivar onPeerGone: C{(region, peer, reason)}: that relay does not, or no
        longer, reach the peer.
    @ivar onHealth: C{(region, text)}: the relay has a problem; no text: it is
        over.
    @ivar onConnected: C{(region)}: the relay has let us in.
    @ivar onDisconnected: C{(region, reason)}: and is gone.
    @ivar onFailed: C{(region, error)}: no connection could be made.
    """

    onPackets: Callable[[int, bytes, list[bytes]], object] = _ignore
    onPeerGone: Callable[[int, bytes, int], object] = _ignore
    onHealth: Callable[[int, str], object] = _ignore
    onConnected: Callable[[int], object] = _ignore
    onDisconnected: Callable[[int, Failure], object] = _ignore
    onFailed: Callable[[int, RelayError], object] = _ignore


@frozen
class PoolStatus:
    """
    How the relays are doing.

    @ivar home: the home region, if there is one.
    @ivar regions: by region id; only those that were ever of use.
    """

    home: int | None
    regions: dict[int, RegionStatus]


class RelayPool(MultiService):
    """
    The connections with all regions.

    A region is connected with when it is the home or something is sent to it,
    and one that fails disturbs no other.  Where a peer's packets came from is
    remembered, so that a peer whose relay is not known can be answered.

    Nothing is ever dialled because a peer says so: all that a peer can bring
    about is that packets for it are handed to a relay of the map.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        nodeKey: NodeKey,
        events: RelayEvents,
        *,
        randbytes: Callable[[int], bytes] = os.urandom,
        plain: bool = False,
    ) -> None:
        """
        @param reactor: for time; connections come from C{dialer}.
        @param nodeKey: who we are.
        @param randbytes: the source of randomness.
        @param plain: do without TLS, which only debugging wants.
        """
        MultiService.__init__(self)
        self.home: int | None = None
        self.droppedUnknownRegion = 0
        self.droppedUnknownPeer = 0
        self._reactor = reactor
        self._dialer = dialer
        self._nodeKey = nodeKey
        self._events = events
        self._randbytes = randbytes
        self._plain = plain
        self._map: dict[int, DERPRegion] = {}
        self._regions: dict[int, RegionService] = {}
        self._observed: dict[bytes, int] = {}
        self._peers: Collection[bytes] | None = None
        self._stopping: set[Deferred[object]] = set()

    # -- what the netmap says ----------------------------------------------------

    def setMap(self, derpMap: DERPMap) -> frozenset[int]:
        """
        Take a new relay map.

        Connections with regions that are described otherwise now are closed;
        the home is connected with anew.

        @param derpMap: the whole map, not a change of one.
        @return: the regions that are gone or described otherwise; when the home
            is among them it is time to measure again.
        """
        regions = {
            number: region
            for number, region in (derpMap.regions or {}).items()
            if region is not None
        }
        changed = frozenset(
            number
            for number, region in self._map.items()
            if regions.get(number) != region
        )
        self._map = regions
        for number in changed:
            self._drop(number)
        self._applyHome()
        return changed

    def setKey(self, nodeKey: NodeKey) -> None:
        """Be somebody else: all connections are closed, the home's made anew."""
        if nodeKey == self._nodeKey:
            return
        self._nodeKey = nodeKey
        self._observed.clear()
        for region in list(self._regions.values()):
            region.reconnect(nodeKey)

    def setHome(self, regionID: int | None) -> None:
        """
        Make a region the home: the one where peers find us.

        A region that is not in the map becomes the home when it gets there.
        """
        if regionID != self.home:
            _log.info("the home relay is now {region}", region=regionID)
        self.home = regionID
        self._applyHome()

    def setPeers(self, peers: Collection[bytes]) -> None:
        """
        Say who belongs to the tailnet, as raw node keys.

        From then on what others send is dropped; what was remembered of peers
        that are gone is forgotten.
        """
        self._peers = frozenset(peers)
        for peer in [p for p in self._observed if p not in self._peers]:
            del self._observed[peer]

    def _applyHome(self) -> None:
        for number, region in list(self._regions.items()):
            region.setHome(number == self.home)
        if self.home is not None and self.home in self._map:
            self._region(self.home).setHome(True)

    def _region(self, number: int) -> RegionService:
        region = self._regions.get(number)
        if region is None:
            region = RegionService(
                self._reactor,
                self._dialer,
                self._map[number],
                self._nodeKey,
                self,
                randbytes=self._randbytes,
                plain=self._plain,
            )
            # Known by its key in the map, whatever the region says of itself.
            region.regionID = number
            region.isHome = number == self.home
            self._regions[number] = region
            Service.setServiceParent(region, self)
        return region

    def _drop(self, number: int) -> None:
        region = self._regions.pop(number, None)
        if region is None:
            return
        self._forgetVia(number)
        # Gives a Deferred only where a child takes time to stop.
        stopping = Service.disownServiceParent(region)
        if not isinstance(stopping, Deferred):
            return
        self._stopping.add(stopping)

        def stopped(result: object) -> None:
            self._stopping.discard(stopping)
            if isinstance(result, Failure):
                _log.failure("a relay connection did not stop", result)

        stopping.addBoth(stopped)

    def stopService(self) -> Deferred[None]:
        """Close all connections; fires when nothing of them is left."""
        children: Deferred[object] = MultiService.stopService(self)
        return DeferredList([children, *self._stopping]).addCallback(lambda _: None)

    # -- sending -----------------------------------------------------------------

    def regionFor(self, peer: bytes, home: int | None) -> int | None:
        """
        The region by which to send to a peer.

        @param peer: its raw node key.
        @param home: its home region as the netmap tells it; C{None} or 0 when
            it does not.
        @return: its home, unless there is no connection with that one but with
            the one where the peer was heard last; without a home that one, and
            at last our own home.
        """
        observed = self._observed.get(peer)
        if home:
            region = self._regions.get(home)
            if region is not None and region.isOpen:
                return home
            if observed is not None:
                other = self._regions.get(observed)
                if other is not None and other.isOpen:
                    return observed
            return home if home in self._map else None
        candidate = observed if observed is not None else self.home
        if candidate is None or candidate not in self._map:
            return None
        return candidate

    def send(self, region: int, peer: bytes, messages: list[bytes]) -> None:
        """
        Send packets to a peer by a relay; connect first if need be.

        @param region: the region to use, such as L{regionFor} says, or the
            peer's home.
        @param peer: the peer's raw node key.
        @param messages: the packets, in order.
        """
        chosen = self.regionFor(peer, region)
        if chosen is None or not self.running:
            self.droppedUnknownRegion += len(messages)
            return
        self._region(chosen).send(peer, messages)

    def observedRegion(self, peer: bytes) -> int | None:
        """The region where a peer was heard last, if it is still connected."""
        return self._observed.get(peer)

    def _forgetVia(self, number: int) -> None:
        for peer in [p for p, via in self._observed.items() if via == number]:
            del self._observed[peer]

    # -- looking after the connections -----------------------------------------------

    def checkConnections(self, addresses: Collection[str] | None = None) -> None:
        """
        After a change of network: find out which connections still work.

        @param addresses: the addresses that this machine has now; connections
            that leave by another are closed at once.  C{None} when that is not
            known.  All others are pinged, and closed when nothing comes back.
        """
        for region in list(self._regions.values()):
            local = region.localAddress()
            if local is None:
                continue
            if addresses is not None and local not in addresses:
                region.reconnect()
                continue
            answered = region.ping(PING_TIMEOUT)
            if answered is not None:
                answered.addErrback(self._notAnswered, region)

    def _notAnswered(self, failure: Failure, region: RegionService) -> None:
        failure.trap(RelayError)
        if region.isOpen:
            region.reconnect()

    def lastHeard(self, region: int) -> float | None:
        """When the last frame of a region came, in seconds of the reactor."""
        service = self._regions.get(region)
        return None if service is None else service.lastHeard

    def isConnected(self, region: int) -> bool:
        """Whether a region has let us in."""
        service = self._regions.get(region)
        return service is not None and service.isConnected

    def status(self) -> PoolStatus:
        """How the relays are doing now."""
        return PoolStatus(
            home=self.home,
            regions={n: region.status() for n, region in self._regions.items()},
        )

    # -- what the regions tell ---------------------------------------------------------

    def regionPackets(
        self, region: RegionService, source: bytes, packets: list[bytes]
    ) -> None:
        """Packets from a peer."""
        peers = self._peers
        if peers is not None and source not in peers:
            self.droppedUnknownPeer += len(packets)
            return
        observed = self._observed
        number = region.regionID
        if observed.get(source) != number:
            if source not in observed and len(observed) >= OBSERVED_LIMIT:
                del observed[next(iter(observed))]
            observed[source] = number
        self._events.onPackets(number, source, packets)

    def regionPeerGone(self, region: RegionService, peer: bytes, reason: int) -> None:
        """The relay does not, or no longer, reach a peer."""
        if self._observed.get(peer) == region.regionID:
            del self._observed[peer]
        self._events.onPeerGone(region.regionID, peer, reason)

    def regionHealth(self, region: RegionService, problem: str) -> None:
        """The relay has a problem, or has none any more."""
        self._events.onHealth(region.regionID, problem)

    def regionConnected(self, region: RegionService) -> None:
        """The relay has let us in."""
        self._events.onConnected(region.regionID)

    def regionDisconnected(self, region: RegionService, reason: Failure) -> None:
        """The connection is gone, and what was learnt by it."""
        self._forgetVia(region.regionID)
        self._events.onDisconnected(region.regionID, reason)

    def regionFailed(self, region: RegionService, error: RelayError) -> None:
        """No connection could be made."""
        self._events.onFailed(region.regionID, error)
