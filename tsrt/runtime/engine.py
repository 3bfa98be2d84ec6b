"""
A running node: its parts, from start to stop.

An engine is made anew for each start (see L{tsrt.runtime.build}), so that
nothing of a former run is left in a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import inf

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tsrt.addresses import AddrPort, formatAddress, parseAddress
from tsrt.control.service import ControlService
from tsrt.derp.pool import RelayPool
from tsrt.errors import RelayError, WireError
from tsrt.keys import Secret
from tsrt.netmap.delta import Changes
from tsrt.netmap.exitnode import ExitChoice
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.forwarding import ForwardTable
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node as Peer
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.whois import WhoIs
from tsrt.path.mappings import Service as MappingService
from tsrt.path.netcheck import Report
from tsrt.path.places import describe
from tsrt.path.status import PathChange
from tsrt.runtime.backendstatus import BackendStatus
from tsrt.runtime.datapath import DataPath
from tsrt.runtime.dispatch import NetmapDispatcher
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.runtime.hostinfo import describeNode
from tsrt.runtime.identity import IdentityKeeper
from tsrt.runtime.lifecycle import Lifecycle
from tsrt.runtime.metrics import MetricsSource
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.paths import PathService
from tsrt.runtime.peerpaths import PathReporter
from tsrt.runtime.pings import Pinger
from tsrt.runtime.preferences import PreferenceCell, Preferences
from tsrt.runtime.services import OrderedMultiService
from tsrt.runtime.status import Health, NodeState, StatusPublisher
from tsrt.tailcfg import UNSET, DERPMap, NetInfo
from tsrt.underlay.portmapper import PortMapper

_log = Logger(namespace="tsrt.runtime")

DERP_STEP = "DERP"

# Days before the end of the node key at which users are told.
_WARN_DAYS = (14, 3, 1)

# Least seconds between two looks whether the relays are still there.
_DOUBT_INTERVAL = 10.0

_PORTAL = (
    "this network lets nobody out before a login page (captive portal): open any "
    "http:// page in a browser on this machine, and log in there"
)

_UDP = 17

_NO_EGRESS = (
    "this node offers to be an exit node and lets nothing out: set forwardExitEgress"
)

# The attribute by which a tailnet forbids its nodes UPnP.
_NO_UPNP = "debug-disable-upnp"


class Engine(OrderedMultiService):
    """
    Holds the parts, and decides when the node is up.

    The parts are set by L{tsrt.runtime.build}, which alone knows how they are
    made.
    """

    control: ControlService
    relays: RelayPool
    paths: PathService
    pinger: Pinger
    pathReporter: PathReporter
    backendStatus: BackendStatus
    portMapper: PortMapper
    dispatcher: NetmapDispatcher
    datapath: DataPath
    packetFilter: PacketFilter
    measureRelays: Callable[[DERPMap], object]
    measureAgain: Callable[[], object]
    metrics: MetricsSource
    mayExit: bool

    def __init__(
        self,
        reactor: IReactorTime,
        stopTimeout: float,
        *,
        overlay: NodeOverlay,
        forwarding: ForwardingOverlay,
        lifecycle: Lifecycle,
        publisher: StatusPublisher,
        preferences: PreferenceCell,
        keeper: IdentityKeeper,
        wallclock: Callable[[], float],
    ) -> None:
        super().__init__(reactor, stopTimeout)
        self._overlay = overlay
        self._forwarding = forwarding
        self._lifecycle = lifecycle
        self._publisher = publisher
        self._preferences = preferences
        self._keeper = keeper
        self._wallclock = wallclock
        self._hasRegions = True
        self._doubted = -inf
        self._external: bytes | None = None
        self._report: Report | None = None
        self.health = Health(lambda found: publisher.update(warnings=found))

    # -- what is asked of it -------------------------------------------------------

    @property
    def netmap(self) -> NetworkMap:
        """The netmap at present."""
        return self.dispatcher.map

    def whois(self, packed: bytes) -> WhoIs | None:
        """Who is behind a tailnet address."""
        netmap = self.netmap
        node = netmap.nodeByAddress(packed)
        if node is None:
            return None
        granted = {}
        for own in self._overlay.localAddresses():
            if len(own) == len(packed):
                granted = self.packetFilter.capabilities(packed, own)
        return WhoIs(node, netmap.profile(node.user), granted)

    def describePath(self, packed: bytes) -> str:
        """How packets to a tailnet address get there, in words."""
        node = self.netmap.nodeByAddress(packed)
        if node is None:
            return "no path"
        if node is self.netmap.selfNode:
            return "this node"
        status = self.paths.book.status(node.key.raw, self._overlay.now())
        if status is not None and status.place is not None and status.isTrusted:
            return describe(status.place)
        region = self.relays.regionFor(node.key.raw, node.homeDERP)
        return f"relay {self.regionName(region)}" if region else "no path"

    def nameOf(self, key: bytes) -> str:
        """What people call a peer, by its raw node key."""
        node = self.netmap.peerByKey(key)
        return "a node that is gone" if node is None else node.name or node.hostname

    def findPeer(self, host: str) -> Peer | None:
        """The peer with a MagicDNS name, in short or in full, or an address."""
        peers = self.netmap.peers
        found = peers.withName(host)
        if found is None:
            try:
                packed = [parseAddress(host)]
            except WireError:
                packed = self._overlay.resolve(host)[:1]
            found = peers.withAddress(packed[0]) if packed else None
        return found

    def regionName(self, number: int) -> str:
        """What people call a relay region."""
        region = (self.netmap.derpMap.regions or {}).get(number)
        return region.regionCode if region and region.regionCode else str(number)

    def describeSteps(self) -> str:
        """What was tried to bring the node up, with results."""
        return self.control.steps.describe()

    def logout(self) -> Deferred[None]:
        """Leave the tailnet and forget the node key."""
        return Deferred.fromCoroutine(self._logout())

    async def _logout(self) -> None:
        try:
            await self.control.logout()
        finally:
            self._keeper.forget()

    # -- what the user wants -------------------------------------------------------------

    def startService(self) -> None:
        """Start all parts, and follow the user's preferences from now on."""
        self._preferences.attach(self._preferencesChanged)
        self._lookAtEgress(self._preferences.value)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Stop all parts."""
        self._preferences.attach(None)
        return super().stopService()

    def _preferencesChanged(self, former: Preferences, now: Preferences) -> None:
        if now.shieldsUp != former.shieldsUp:
            self.packetFilter.setShieldsUp(now.shieldsUp)
            self.cutForbidden()
        isOtherExit = now.exitNode != former.exitNode
        if (
            isOtherExit
            or now.acceptRoutes != former.acceptRoutes
            or now.advertised != former.advertised
            or now.acceptDNS != former.acceptDNS
        ):
            self.dispatcher.preferencesChanged(isOtherExit)
        self._lookAtEgress(now)
        self._tellHostinfo()

    def _lookAtEgress(self, preferences: Preferences) -> None:
        """Say it if peers are promised a way out that there is not (R-CFG-2)."""
        isInVain = preferences.advertiseExitNode and not self.mayExit
        self.health.set("exit-egress", _NO_EGRESS if isInVain else None)

    def cutForbidden(self) -> None:
        """Other rules are in force: end what peers began and may not any more."""
        mayBegin = self.packetFilter.mayBegin
        self.datapath.cutForbidden()
        self._forwarding.cutDatagrams(
            lambda remote, local, port: mayBegin(_UDP, remote, local, port)
        )

    def setForwarding(self, table: ForwardTable, sources: RouteTable[bytes]) -> None:
        """This node leads to other networks, or no more."""
        self._forwarding.setTable(table, sources.lookup)
        self.datapath.setForwarding(bool(table))

    def latencies(self) -> Mapping[int, float]:
        """Seconds to the relay regions, as far as they were measured."""
        return {} if self._report is None else self._report.latencies

    def exitChanged(self, choice: ExitChoice) -> None:
        """Another peer is the exit node, or none is any more."""
        node = choice.node
        self._publisher.update(exitNode="" if node is None else node.name)
        self.health.set("exit-node", choice.problem)
        if choice.problem:
            _log.warn("{problem}", problem=choice.problem)
        elif node is not None:
            _log.info("the exit node is {name}", name=node.name)
        else:
            _log.info("there is no exit node")
        self._tellHostinfo()

    def _tellHostinfo(self) -> None:
        node = self.dispatcher.exit.node
        exitNodeID = "" if node is None else node.stableID
        self.control.setHostinfo(describeNode(self._preferences.value, exitNodeID))

    # -- what the parts report -------------------------------------------------------

    def netmapChanged(self, netmap: NetworkMap, changes: Changes) -> None:
        """The netmap was applied to everything: tell users, look if we are up."""
        own = netmap.selfNode
        if own is None:
            return
        self.health.replace("server-", list(netmap.health))
        self.portMapper.setPolicy(_NO_UPNP not in own.capMap)
        self._warnOfExpiry(netmap)
        if changes.peersChanged:
            self.relays.setPeers({peer.key.raw for peer in netmap.peers})
        profile = netmap.profile(own.user)
        self._publisher.update(
            addresses=tuple(map(formatAddress, own.packedAddresses())),
            name=own.name,
            tailnet=netmap.domain,
            magicDNSSuffix=own.tailnetSuffix,
            tags=own.tags,
            keyExpiry=own.keyExpiry,
            expired=own.expired,
            peerCount=len(netmap.peers),
            user="" if own.tags or profile is None else profile.loginName,
        )
        if not own.machineAuthorized:
            self._lifecycle.approvalRequired()
            return
        self._look()

    def _warnOfExpiry(self, netmap: NetworkMap) -> None:
        """Say that the key ends soon, while somebody can still do something."""
        own = netmap.selfNode
        text = None
        if own is not None and own.keyExpiry is not None:
            days = (own.keyExpiry.timestamp() - self._wallclock()) / 86400
            if days < _WARN_DAYS[0]:
                text = f"the node key expires in {max(days, 0):.1f} days: log in again"
        self.health.set("key-expiry", text)

    def pathChanged(self, change: PathChange) -> None:
        """Packets to a peer go another way from now on."""
        self.pathReporter.changed()
        if change.place is None:
            self._doubtRelays()
        node = self.netmap.peerByKey(change.peer)
        if node is not None and change.place is not None:
            now = self._overlay.now()
            self._overlay.stack.pathRenewed(node.packedAddresses(), now)
            self._forwarding.stack.pathRenewed(node.packedAddresses(), now)
            self.datapath.rearm()

    def _doubtRelays(self) -> None:
        """
        Something on the way to a peer broke, perhaps nearer to us than to it:
        then the connections with the relays are broken, too, and do not know.
        """
        now = self._overlay.now()
        if now - self._doubted >= _DOUBT_INTERVAL:
            self._doubted = now
            self.relays.checkConnections()

    def _externalChanged(self, report: Report) -> None:
        """A router on the way, which we do not see, got another address."""
        mapped = report.globalIPv4
        if mapped is None or report.mappingVaries:
            # With a pool of addresses, another one means nothing.
            return
        former, self._external = self._external, mapped.address
        if former is not None and former != mapped.address:
            _log.info(
                "the internet sees this machine at {now}, no more at {then}",
                now=formatAddress(mapped.address),
                then=formatAddress(former),
            )
            self.relays.checkConnections()
            self.control.reconnect("another external address")

    def setRelayMap(self, derpMap: DERPMap) -> None:
        """Control named the relays."""
        self._hasRegions = any((derpMap.regions or {}).values())
        for region in self.relays.setMap(derpMap):
            # What was wrong with it is of no interest any more.
            self.health.set(f"relay-{region}", None)
        self.measureRelays(derpMap)
        if self._hasRegions:
            self.control.steps.begin(DERP_STEP, "measuring the relays")

    def measured(self, report: Report) -> None:
        """The network was measured: there is, or may be, another home relay."""
        self._externalChanged(report)
        self._portalSeen(report)
        home = report.preferredRegion
        if home:
            self.relays.setHome(home)
            self._publisher.update(homeRegion=self.regionName(home))
        if report.globalIPv4 is not None:
            self.portMapper.seenFrom(report.globalIPv4.address)
        self._report = report
        self._tellNetInfo()
        self._look()

    def _portalSeen(self, report: Report) -> None:
        """Say that somebody has to open a page before anything works."""
        former = self._report
        if report.captivePortal:
            if former is None or not former.captivePortal:
                _log.warn("{what}", what=_PORTAL)
            self.health.set("captive-portal", _PORTAL)
        elif report.udp or report.captivePortal is False:
            self.health.set("captive-portal", None)

    def portMapped(self, address: AddrPort | None) -> None:
        """The gateway gave us a port, or takes it back."""
        self.paths.setMapped(address)
        self._tellNetInfo()

    def _tellNetInfo(self) -> None:
        report = self._report
        if report is not None:
            mapper = self.portMapper
            info = netInfoOf(report, mapper.services, mapper.mapping is not None)
            self.control.setNetInfo(info)

    def relayConnected(self, region: int) -> None:
        """A relay let us in."""
        self.health.set(f"relay-{region}", None)
        if region == self.relays.home:
            self.control.steps.succeeded(DERP_STEP, self.regionName(region))
        self._look()

    def relayLost(self, region: int) -> None:
        """The connection with a relay broke; it is made anew."""
        if region == self.relays.home:
            self.measureAgain()

    def relayFailed(self, region: int, error: RelayError) -> None:
        """A relay cannot be reached; it is tried again."""
        if region == self.relays.home:
            # Nobody reaches this node meanwhile: see whether there is a better
            # home, even while the node is idle.
            self.measureAgain()
        name = self.regionName(region)
        self.health.set(f"relay-{region}", f"relay {name}: {error.describe()}")
        self.control.steps.failed(DERP_STEP, f"{name}: {error}")

    def relayHealth(self, region: int, text: str) -> None:
        """A relay says what is wrong with it, or that nothing is any more."""
        name = self.regionName(region)
        self.health.set(
            f"relay-problem-{region}", f"relay {name}: {text}" if text else None
        )

    def _look(self) -> None:
        """Are we up?"""
        own = self.netmap.selfNode
        home = self.relays.home
        if own is None or not own.addresses or not own.machineAuthorized:
            return
        self._overlay.setUp()
        if self._hasRegions and (home is None or not self.relays.isConnected(home)):
            return
        if self._publisher.status.state is not NodeState.RUNNING:
            self._lifecycle.ready()

    def login(self, authKey: Secret | None = None) -> Deferred[None]:
        """Get a new node key."""
        return self.control.login(authKey).addCallback(lambda _: None)

    async def leave(self) -> None:
        """Leave the tailnet for good, if the node was in it."""
        if self._publisher.status.addresses:
            await self._logout()


def netInfoOf(
    report: Report, services: Collection[MappingService] = (), isMapped: bool = False
) -> NetInfo:
    """
    What control is told of a measurement.

    @param services: how the gateway maps ports.
    @param isMapped: whether it has mapped one for us.
    """
    return NetInfo(
        havePortMap=isMapped or UNSET,
        upnp=MappingService.UPNP in services,
        pmp=MappingService.PMP in services,
        pcp=MappingService.PCP in services,
        preferredDERP=report.preferredRegion or UNSET,
        workingUDP=report.udp,
        workingIPv6=report.ipv6,
        mappingVariesByDestIP=report.mappingVaries,
        derpLatency=report.latencyKeys() or UNSET,
    )
