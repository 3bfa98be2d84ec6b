"""
Making the parts of a node and joining them: the only place that knows them all.
"""

from __future__ import annotations

from hyperlink import URL
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tsrt.addresses import AddrPort
from tsrt.config import NodeConfig, Seams
from tsrt.control.c2n import C2NSources
from tsrt.control.service import ControlService
from tsrt.control.settings import ControlSettings
from tsrt.derp.latency import measureLatency
from tsrt.derp.pool import RelayEvents, RelayPool
from tsrt.errors import NotRunning
from tsrt.interfaces import ILoginPrompt, IStateStore, IStreamDialer
from tsrt.keys import DiscoKey, NodeKey
from tsrt.netmap.delta import Changes, MapState
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.netmap import NetworkMap
from tsrt.path.book import PathBook
from tsrt.path.captive import TAILSCALE_HOSTS, portalChecks
from tsrt.path.endpoints import EndpointBook
from tsrt.path.netcheck import Report
from tsrt.path.peerrelays import PeerRelays
from tsrt.runtime.backendstatus import BackendStatus, StatusSources
from tsrt.runtime.capture import CaptureHub
from tsrt.runtime.controlevents import ControlEvents
from tsrt.runtime.controlpings import answerPing
from tsrt.runtime.datapath import DataPath
from tsrt.runtime.dispatch import NetmapDispatcher
from tsrt.runtime.drain import DrainService
from tsrt.runtime.engine import Engine
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.runtime.hostinfo import describeNode
from tsrt.runtime.housekeeping import DataPathService, LeaveService, StateService
from tsrt.runtime.identity import IdentityKeeper
from tsrt.runtime.lifecycle import Lifecycle
from tsrt.runtime.linkchange import LinkChangeHandler
from tsrt.runtime.metrics import MetricsSource
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.paths import PathService
from tsrt.runtime.peerpaths import PathReporter, PeerPaths
from tsrt.runtime.pings import Pinger
from tsrt.runtime.preferences import PreferenceCell
from tsrt.runtime.prompt import LogPrompt
from tsrt.runtime.status import StatusPublisher
from tsrt.runtime.tsmp import TSMPResponder
from tsrt.runtime.watchers import Watchers
from tsrt.tunnel.peer import PeerTunnelStatus
from tsrt.tunnel.table import TunnelTable
from tsrt.underlay.captiveportal import findCaptivePortal
from tsrt.underlay.dial import StreamDialer
from tsrt.underlay.linkmonitor import linkMonitor
from tsrt.underlay.netcheck import NetcheckService
from tsrt.underlay.portmapper import PortMapper
from tsrt.underlay.socket import UnderlaySocket
from tsrt.underlay.trust import trustRoot

__all__ = ["Engine", "buildEngine"]

_log = Logger(namespace="tsrt.runtime")

# Seconds after the last packet for which a node counts as active.
_ACTIVE = 45.0


def buildEngine(
    reactor: IReactorTime,
    config: NodeConfig,
    seams: Seams,
    *,
    store: IStateStore,
    overlay: NodeOverlay,
    forwarding: ForwardingOverlay,
    lifecycle: Lifecycle,
    publisher: StatusPublisher,
    preferences: PreferenceCell,
    captures: CaptureHub,
    netmapWatchers: Watchers[NetworkMap],
    prompt: ILoginPrompt | None,
) -> Engine:
    """
    Make the engine of one run; it is not started.

    Opens the state store, which the engine closes as it stops.

    @raise TSRTError: the store, the auth key or a setting cannot be used; the
        store is closed then.
    """
    store.open()
    try:
        return _build(
            reactor,
            config,
            seams,
            store,
            overlay,
            forwarding,
            lifecycle,
            publisher,
            preferences,
            captures,
            netmapWatchers,
            prompt,
        )
    except BaseException:
        store.close()
        raise


def _build(
    reactor: IReactorTime,
    config: NodeConfig,
    seams: Seams,
    store: IStateStore,
    overlay: NodeOverlay,
    forwarding: ForwardingOverlay,
    lifecycle: Lifecycle,
    publisher: StatusPublisher,
    preferences: PreferenceCell,
    captures: CaptureHub,
    netmapWatchers: Watchers[NetworkMap],
    prompt: ILoginPrompt | None,
) -> Engine:
    randbytes = seams.randbytes
    wallclock = seams.wallclock
    keeper = IdentityKeeper(store, randbytes, config.controlURL)
    disco = DiscoKey.generate(randbytes)
    identity = keeper.load(disco)
    timestamps = keeper.timestamps(wallclock)
    dialer = _dialer(reactor, config, seams)
    engine = Engine(
        reactor,
        config.stopTimeout,
        overlay=overlay,
        forwarding=forwarding,
        lifecycle=lifecycle,
        publisher=publisher,
        preferences=preferences,
        keeper=keeper,
        wallclock=wallclock,
    )
    engine.mayExit = config.forwardExitEgress
    # Until control has accepted a node key the node has one that nobody knows.
    nodeKey = identity.nodeKey or NodeKey.generate(randbytes)

    # Made last, and used by the others once all are made.
    paths: PathService
    control: ControlService

    # -- the machines, from the inside out
    state = MapState()
    tunnel = TunnelTable(nodeKey, timestamp=timestamps, randbytes=randbytes)
    packetFilter = PacketFilter(state.map.capabilitiesOf)
    packetFilter.setShieldsUp(preferences.value.shieldsUp)
    relays = RelayPool(
        reactor,
        dialer,
        nodeKey,
        RelayEvents(
            onPackets=lambda region, peer, packets: paths.relayed(
                region, peer, packets
            ),
            onConnected=engine.relayConnected,
            onDisconnected=lambda region, reason: engine.relayLost(region),
            onFailed=engine.relayFailed,
            onHealth=engine.relayHealth,
        ),
        randbytes=randbytes,
    )
    relays.setName("relays")

    responder = TSMPResponder()

    def nodeAt(address: bytes) -> bytes:
        peer = state.map.peerByAddress(address)
        return address if peer is None else peer.packedAddresses()[0]

    for stack in (overlay.stack, forwarding.stack):
        stack.nodeAt = nodeAt
    datapath = DataPath(
        reactor,
        now=overlay.now,
        stack=overlay.stack,
        forwardStack=forwarding.stack,
        tunnel=tunnel,
        packetFilter=packetFilter,
        transmit=lambda peer, messages: paths.transmit(peer, messages),
        reply=lambda place, messages: paths.reply(place, messages),
        onHeard=lambda place, peers: paths.heard(place, peers),
        onTSMP=responder,
    )

    captures.attach(lambda hook: setattr(datapath, "capture", hook))

    def publish(netmap: NetworkMap, changes: Changes) -> None:
        datapath.rearm()
        engine.netmapChanged(netmap, changes)
        netmapWatchers.tell(netmap)

    dispatcher = NetmapDispatcher(
        state=state,
        tunnel=tunnel,
        packetFilter=packetFilter,
        keepAlive=config.keepAlive,
        now=overlay.now,
        wallclock=wallclock,
        preferences=lambda: preferences.value,
        latencies=engine.latencies,
        setRoutes=datapath.setRoutes,
        setMasquerades=datapath.setMasquerades,
        setAddresses=overlay.setAddresses,
        setForwarding=engine.setForwarding,
        setRelays=engine.setRelayMap,
        setPaths=lambda changes, netmap: paths.applyNetmap(changes, netmap),
        cutForbidden=engine.cutForbidden,
        setExit=engine.exitChanged,
        publish=publish,
    )

    def useNodeKey(key: NodeKey) -> None:
        tunnel.setKey(key)
        relays.setKey(key)
        paths.setOwnKey(key.public().raw)

    # -- the real network
    socket = UnderlaySocket(reactor, port=config.port)
    netcheck = NetcheckService(
        reactor,
        socket,
        dialer,
        randbytes=randbytes,
        onReport=lambda report: _measured(engine, paths, report),
        httpsLatency=measureLatency,
        findPortal=lambda derpMap, home: findCaptivePortal(
            reactor, portalChecks(derpMap, home, _portalHosts(config))
        ),
        lastHeard=relays.lastHeard,
        isActive=lambda: (
            datapath.lastActive is not None
            and overlay.now() - datapath.lastActive < _ACTIVE
        ),
        mayChangeHome=lambda: control.status.isMapAlive or relays.home is None,
    )
    engine.measureRelays = netcheck.setMap
    engine.measureAgain = netcheck.networkChanged

    # -- the ways to the peers
    book = PathBook(
        disco, randbytes=randbytes, now=overlay.now(), relayOnly=config.relayOnly
    )
    paths = PathService(
        reactor,
        book,
        PeerRelays(book, disco, randbytes=randbytes),
        _endpoints(config),
        socket,
        relays,
        now=overlay.now,
        deliver=datapath.receive,
        regionOf=dispatcher.regionOf,
        nameOf=engine.nameOf,
        advertise=lambda endpoints: control.setEndpoints(
            (endpoint.address.text(), int(endpoint.kind)) for endpoint in endpoints
        ),
        interfaces=lambda: seams.interfaces(reactor),
        checkNetwork=lambda: _checkNetwork(netcheck),
        onChange=engine.pathChanged,
        granted=packetFilter.capabilities,
        relayOnly=config.relayOnly,
    )
    paths.setOwnKey(nodeKey.public().raw)
    engine.paths = paths
    engine.portMapper = portMapper = PortMapper(
        reactor,
        randbytes=randbytes,
        gateway=lambda: seams.gateway(reactor),
        localPort=lambda: socket.localPort(4),
        onChange=engine.portMapped,
        isEnabled=config.portMapping and not config.relayOnly,
        mayUPnP=config.upnp,
    )
    engine.pathReporter = PathReporter(
        reactor,
        lambda: PeerPaths(
            netmap=lambda: state.map,
            resolve=engine.findPeer,
            describe=engine.describePath,
            status=lambda peer: paths.book.status(peer, overlay.now()),
            isInUse=lambda peer: _isInUse(tunnel.status(peer)),
            age=lambda then: overlay.now() - then,
            wallclock=wallclock,
        ),
        lambda view: publisher.update(paths=view),
    )
    engine.backendStatus = BackendStatus(
        StatusSources(
            netmap=lambda: state.map,
            status=lambda: publisher.status,
            path=lambda peer: paths.book.status(peer, overlay.now()),
            tunnel=tunnel.status,
            endpoints=paths.ownEndpoints,
            regionName=engine.regionName,
            exitNode=lambda: dispatcher.exit,
            offloads=lambda: socket.offloads,
            age=lambda then: overlay.now() - then,
            wallclock=wallclock,
        )
    )
    engine.pinger = Pinger(
        reactor,
        overlay,
        paths,
        responder,
        randbytes=randbytes,
        netmap=lambda: state.map,
        send=lambda peer, packets: datapath.sendPackets(peer, packets, overlay.now()),
        describePath=engine.describePath,
        regionName=engine.regionName,
    )

    # -- control
    engine.metrics = metrics = MetricsSource(
        traffic=lambda: paths.traffic.byPath(),
        counters={
            "datapath": lambda: datapath.counters,
            "filter": lambda: packetFilter.counters,
            "stack": lambda: overlay.stack.counters,
            "forward": lambda: forwarding.counters,
            "forwardstack": lambda: forwarding.stack.counters,
            "tunnel": lambda: tunnel.counters,
            "path": lambda: paths.book.counters,
            "peerrelay": lambda: paths.peerRelays.counters,
            "underlay": lambda: socket.counters,
            "portmap": lambda: portMapper.counters,
        },
        homeRegion=lambda: relays.home or 0,
        healthMessages=lambda: len(publisher.status.health),
        peers=lambda: len(state.map.peers),
        routes=forwarding.routeCounts,
    )
    control = ControlService(
        reactor,
        ControlSettings(
            url=config.controlURL,
            authKey=config.resolvedAuthKey(),
            ephemeral=config.ephemeral,
            forceReauth=config.forceReauth,
            allowHTTP=config.allowHTTP,
            forceTLS=config.forceHTTPS,
        ),
        identity,
        dialer=dialer,
        observer=ControlEvents(
            keeper=keeper,
            lifecycle=lifecycle,
            publisher=publisher,
            health=engine.health,
            prompt=prompt or LogPrompt(),
            dispatcher=dispatcher,
            useNodeKey=useNodeKey,
            newPoll=state.newPoll,
        ),
        hostinfo=describeNode(preferences.value),
        pinger=lambda ip, kind: answerPing(engine.pinger, ip, kind),
        c2n=C2NSources(
            metrics=metrics.text,
            health=lambda: {"Warnings": list(publisher.status.health)},
        ),
        randbytes=randbytes,
        wallTime=wallclock,
    )

    engine.control = control
    engine.relays = relays
    engine.dispatcher = dispatcher
    engine.datapath = datapath
    engine.packetFilter = packetFilter
    # Children stop in reverse: first the connections of users end, while peers
    # still know the node; then it leaves, if it is to; control is told nothing
    # more; and the state is saved last.
    children: list[Service] = [
        StateService(store, keeper, timestamps),
        socket,
        netcheck,
        relays,
        paths,
        portMapper,
        engine.pathReporter,
        DataPathService(reactor, datapath, overlay, dispatcher),
        control,
        linkMonitor(
            reactor,
            lambda: seams.interfaces(reactor),
            LinkChangeHandler(
                socket,
                paths,
                relays,
                control,
                netcheck,
                portMapper,
                datapath.doubtSessions,
                engine.health.set,
            ),
        ),
    ]
    if config.ephemeral:
        children.append(LeaveService(engine.leave))
    children.append(DrainService(reactor, overlay))
    for child in children:
        child.setServiceParent(engine)
    return engine


def _endpoints(config: NodeConfig) -> EndpointBook:
    book = EndpointBook(fixedPort=bool(config.port))
    book.setStatic(map(AddrPort.parse, config.staticEndpoints))
    return book


def _portalHosts(config: NodeConfig) -> tuple[str, ...]:
    """Whoever does not use Tailscale's servers does not ask them anything."""
    host = URL.from_text(config.controlURL).host
    return TAILSCALE_HOSTS if host in TAILSCALE_HOSTS else ()


def _measured(engine: Engine, paths: PathService, report: Report) -> None:
    paths.measured(report)
    engine.measured(report)


def _isInUse(status: PeerTunnelStatus | None) -> bool:
    """Whether anything was exchanged with a peer, or is about to be."""
    return status is not None and (
        status.isHandshaking or status.lastHandshake is not None
    )


def _checkNetwork(netcheck: NetcheckService) -> None:
    """Measure; who wants to know is told of each report anyway."""
    netcheck.check().addErrback(lambda failure: failure.trap(NotRunning))


def _dialer(reactor: IReactorTime, config: NodeConfig, seams: Seams) -> IStreamDialer:
    if seams.makeDialer is not None:
        return seams.makeDialer(reactor, config)
    return StreamDialer(reactor, config.proxy, trustRoot(config.caFile))
