"""
Applying a map response to everything that depends on it, in one written order.

Keys first, so that no packet is sealed for a peer that is gone; then where
packets may go and come from; then what may come in; then how peers are
reached; then names; and last what users are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

from tsrt.netmap.delta import Changes, MapState
from tsrt.netmap.exitnode import NO_EXIT, ExitChoice, chooseExit
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.forwarding import ForwardTable
from tsrt.netmap.masquerade import Masquerade, masquerades
from tsrt.netmap.names import NameTable
from tsrt.netmap.netmap import NetworkMap, Node
from tsrt.netmap.routes import RouteTable, buildRoutes
from tsrt.runtime.preferences import Preferences
from tsrt.tailcfg import DERPMap, MapResponse
from tsrt.tunnel.table import TunnelTable

_log = Logger(namespace="tsrt.netmap")


class NetmapDispatcher:
    """
    Holds the netmap and tells each part of the node what concerns it.

    @ivar names: the names of the tailnet at present.
    @ivar exit: the exit node at present, or why there is none.
    """

    def __init__(
        self,
        *,
        state: MapState,
        tunnel: TunnelTable,
        packetFilter: PacketFilter,
        keepAlive: float,
        now: Callable[[], float],
        wallclock: Callable[[], float],
        preferences: Callable[[], Preferences],
        latencies: Callable[[], Mapping[int, float]],
        setRoutes: Callable[[RouteTable[bytes]], object],
        setMasquerades: Callable[[dict[bytes, Masquerade]], object],
        setAddresses: Callable[[list[bytes]], object],
        setForwarding: Callable[[ForwardTable, RouteTable[bytes]], object],
        setRelays: Callable[[DERPMap], object],
        setPaths: Callable[[Changes, NetworkMap], object],
        cutForbidden: Callable[[], object],
        setExit: Callable[[ExitChoice], object],
        publish: Callable[[NetworkMap, Changes], object],
    ) -> None:
        """
        @param keepAlive: seconds between keep-alives to each peer, or 0.
        @param preferences: gives what the user wants.
        @param latencies: gives the seconds to each relay region, where known.
        @param setRoutes: takes the table from addresses to peers.
        @param setMasquerades: takes how we appear to single peers.
        @param setAddresses: takes this node's packed addresses.
        @param setForwarding: takes what this node leads to, and which peers may
            send from where.
        @param setRelays: takes the map of relay regions.
        @param setPaths: told which peers came, went or changed, and of other
            rules, by which some relay.
        @param cutForbidden: told that other rules are in force.
        @param setExit: told which peer has become the exit node, or why none.
        @param publish: told, at the end, what users may want to know.
        """
        self._state = state
        self._tunnel = tunnel
        self._filter = packetFilter
        self._keepAlive = keepAlive
        self._now = now
        self._wallclock = wallclock
        self._preferences = preferences
        self._latencies = latencies
        self._cutForbidden = cutForbidden
        self._setExit = setExit
        self._setRoutes = setRoutes
        self._setMasquerades = setMasquerades
        self._masqueraded: set[bytes] = set()
        self._setAddresses = setAddresses
        self._setForwarding = setForwarding
        self._setRelays = setRelays
        self._setPaths = setPaths
        self._publish = publish
        self.exit = NO_EXIT
        self._rejectedBefore: tuple[str, ...] = ()
        self.names = NameTable(state.map)

    @property
    def map(self) -> NetworkMap:
        """The netmap."""
        return self._state.map

    def apply(self, response: MapResponse) -> None:
        """
        Apply one response.

        @raise ProtocolError: it is an impossible one; nothing was changed.
        """
        self._tell(self._state.apply(response, self._wallclock()))

    def refresh(self) -> None:
        """Notice nodes whose keys have expired since the last response."""
        changes = self._state.expire(self._wallclock())
        if changes.peersChanged or changes.selfChanged:
            self._tell(changes)

    def _tell(self, changes: Changes) -> None:
        netmap = self._state.map
        self._updateKeys(changes, netmap)
        exitBefore = self.exit
        if changes.peersChanged or changes.selfChanged:
            self.exit = self._chooseExit(netmap)
        isOther = _idOf(self.exit) != _idOf(exitBefore)
        if changes.routesChanged or changes.selfChanged or isOther:
            self._updateRoutes(netmap)
        if self.exit != exitBefore:
            self._setExit(self.exit)
        if changes.peersChanged or changes.selfChanged:
            self._updateMasquerades(changes, netmap)
        if changes.filterChanged or changes.attributesChanged:
            self._filter.setRules(self._state.rules)
        if changes.jailChanged or changes.routesChanged:
            self._filter.setJailed(p.key.raw for p in netmap.peers if p.isJailed)
        if changes.filterChanged or changes.attributesChanged or changes.jailChanged:
            self._cutForbidden()
        if changes.derpMapChanged:
            self._setRelays(netmap.derpMap)
        if changes.peersChanged or changes.filterChanged or changes.selfChanged:
            self._setPaths(changes, netmap)
        if changes.namesChanged or changes.selfChanged or changes.dnsChanged:
            self._updateNames(netmap)
        self._logRejected(changes)
        self._publish(netmap, changes)

    def _updateKeys(self, changes: Changes, netmap: NetworkMap) -> None:
        now = self._now()
        for key in (*changes.rekeyed, *(node.key.raw for node in changes.removed)):
            if netmap.peerByKey(key) is None:
                self._tunnel.removePeer(key)
        for number in changes.upserted:
            node = netmap.peers.byID.get(number)
            if node is None:
                continue
            if node.expired or not node.isReachable:
                self._tunnel.removePeer(node.key.raw)
            else:
                # Keys for path discovery last as long as a process does.
                incarnation = b"" if node.disco is None else node.disco.raw
                self._tunnel.upsertPeer(
                    node.key.raw, self._keepAlive, incarnation, now=now
                )

    def _chooseExit(self, netmap: NetworkMap) -> ExitChoice:
        """Look the exit node up that the user wants (R-ENV-3)."""
        own = netmap.selfNode
        return chooseExit(
            self._preferences().exitNode,
            netmap.peers,
            "" if own is None else own.tailnetSuffix,
            self._latencies(),
            _idOf(self.exit),
        )

    def _updateMasquerades(self, changes: Changes, netmap: NetworkMap) -> None:
        own = netmap.selfNode
        found = (netmap.peers.byID.get(number) for number in changes.upserted)
        concerned = self._masqueraded or any(
            node is not None and (node.masqueradeV4 or node.masqueradeV6)
            for node in found
        )
        if own is None or not concerned:
            return
        table = masquerades(own, netmap.peers)
        self._masqueraded = set(table)
        self._setMasquerades(table)

    def preferencesChanged(self, isOtherExit: bool) -> None:
        """
        The user wants other routes, or another exit node.

        @param isOtherExit: whether the exit node is to be chosen anew; else an
            automatic choice stays.
        """
        netmap = self._state.map
        if netmap.selfNode is None:
            # The first netmap brings it all.
            return
        exitBefore = self.exit
        if isOtherExit:
            self.exit = NO_EXIT
        self.exit = self._chooseExit(netmap)
        self._updateRoutes(netmap)
        self._updateNames(netmap)
        if self.exit != exitBefore:
            self._setExit(self.exit)

    def _updateNames(self, netmap: NetworkMap) -> None:
        self.names = NameTable(netmap, self._preferences().acceptDNS)

    def _updateRoutes(self, netmap: NetworkMap) -> None:
        # Where packets go and where they may come from are one table (R-RT-7).
        wanted = self._preferences()
        table = buildRoutes(netmap.peers, wanted.acceptRoutes, _idOf(self.exit) or None)
        self._setRoutes(table)
        self._filter.setSources(table)
        own = netmap.selfNode
        if own is not None:
            forwarding = ForwardTable(wanted.advertised, own.allowedIPs)
            self._filter.setLocal((*own.addresses, *forwarding.prefixes))
            self._setAddresses(own.packedAddresses())
            self._setForwarding(forwarding, table)

    def _logRejected(self, changes: Changes) -> None:
        rejected = tuple(changes.rejected)
        if rejected and rejected != self._rejectedBefore:
            for sentence in rejected[:5]:
                _log.warn("left out of the netmap: {what}", what=sentence)
            if len(rejected) > 5:
                _log.warn("and {count} more", count=len(rejected) - 5)
        self._rejectedBefore = rejected

    def regionOf(self, key: bytes) -> int:
        """The home relay region of a peer; 0 if it has none."""
        node: Node | None = self._state.map.peerByKey(key)
        return 0 if node is None else node.homeDERP


def _idOf(choice: ExitChoice) -> str:
    """The stable id of an exit node, or empty."""
    return "" if choice.node is None else choice.node.stableID
