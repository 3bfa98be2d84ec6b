"""
The one class to learn: a node of a tailnet.

It delegates; the parts are made in L{tsrt.runtime.build}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from tsrt.addresses import AddrPort, parseAddress
from tsrt.config import NodeConfig, Seams
from tsrt.endpoints import (
    DEFAULT_TIMEOUT,
    TailnetClientEndpoint,
    TailnetServerEndpoint,
)
from tsrt.errors import (
    ConfigError,
    NotRunning,
    TSRTError,
    UnknownPeer,
    WireError,
)
from tsrt.failures import NoSuchPeer
from tsrt.interfaces import ILoginPrompt, IStateStore
from tsrt.netmap.exitnode import suggestExit
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.netmap import Node as Peer
from tsrt.netmap.routes import peersWithRoute
from tsrt.netmap.whois import WhoIs
from tsrt.netstack.stack import Stack
from tsrt.reactor import TailnetReactor
from tsrt.registry import DEFAULT_NAME, Registry
from tsrt.runtime.build import Engine, buildEngine
from tsrt.runtime.capture import Capture, CaptureHub, Writable
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.runtime.lifecycle import LifecycleCore, makeLifecycle
from tsrt.runtime.metrics import Metric
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.ping import PingResult
from tsrt.runtime.pings import PingKind
from tsrt.runtime.preferences import PreferenceCell, Preferences
from tsrt.runtime.services import OrderedMultiService
from tsrt.runtime.status import NodeStatus, StatusPublisher
from tsrt.runtime.waiting import UpWaiter
from tsrt.runtime.watchers import Watchers
from tsrt.services.forwarder.making import makeForwarder
from tsrt.services.loopback import Loopback, openLoopback
from tsrt.services.proxy import Tailnet
from tsrt.state import FileStateStore
from tsrt.web import makeAgent

_log = Logger(namespace="tsrt.node")

nodes: Registry[Node] = Registry()
"""The nodes of this process that endpoint strings can name."""


class Node(OrderedMultiService):
    """
    A node of a tailnet, as a Twisted service.

    Start it as a service (C{setServiceParent}, C{startService}) or use it in
    C{async with}; L{up} tells when it works.  Everything that listens or
    connects may be set up before.

    @ivar apps: the parent for services that need the tailnet; they stop
        before the node leaves it.
    @ivar reactor: the tailnet as a reactor.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        config: NodeConfig | None = None,
        *,
        state: IStateStore | None = None,
        login: ILoginPrompt | None = None,
        seams: Seams | None = None,
        name: str = DEFAULT_NAME,
    ) -> None:
        """
        @param reactor: the host's reactor.
        @param config: what the user set; the environment's settings if there
            is none.
        @param state: where keys are kept; a directory (see
            L{NodeConfig.stateDir}) by default.
        @param login: shows a person how to let the node in; the log by
            default.
        @param seams: what tests replace.
        @param name: what endpoint strings call this node.
        @raise ConfigError: keys would be lost at every stop of a node that is
            to stay.
        """
        self._config = config if config is not None else NodeConfig.fromEnvironment()
        super().__init__(reactor, self._config.stopTimeout)
        self._hostReactor = reactor
        self._seams = seams if seams is not None else Seams()
        self._store = state or FileStateStore(self._config.resolvedStateDir())
        if not self._store.isPersistent and not self._config.ephemeral:
            raise ConfigError(
                "state in memory needs an ephemeral node: any other would leave a "
                "dead machine in the tailnet at every start",
                advice="Set ephemeral, or keep the state in a directory.",
            )
        self._prompt = login
        self._registryName = name
        self._publisher = StatusPublisher()
        self._netmapWatchers: Watchers[NetworkMap] = Watchers()
        self._captures = CaptureHub(self._seams.wallclock)
        self._preferences = PreferenceCell(Preferences.of(self._config))
        self._core = LifecycleCore(self._publisher)
        self._lifecycle = makeLifecycle(self._core)
        self._overlay = NodeOverlay(reactor, Stack(randbytes=self._seams.randbytes))
        self._engine: Engine | None = None
        self._stopping: Deferred[None] | None = None
        self._forwarding = ForwardingOverlay(
            reactor, self._overlay, self._seams.randbytes
        )
        forwarder = makeForwarder(reactor, self._config, self._seams, self._forwarding)
        forwarder.setServiceParent(self)
        self.reactor = TailnetReactor(self._overlay)
        self.apps = OrderedMultiService(reactor, self._config.stopTimeout)
        self.apps.setName("apps")
        self.apps.setServiceParent(self)

    def __repr__(self) -> str:
        return f"<Node {self._config.hostname} {self.status.state.value}>"

    # -- life -------------------------------------------------------------------

    def startService(self) -> None:
        """Begin to join the tailnet; L{up} tells when that is done."""
        if self.running:
            return
        nodes.add(self._hostReactor, self._registryName, self)
        self._lifecycle.starting()
        try:
            self._engine = buildEngine(
                self._hostReactor,
                self._config,
                self._seams,
                store=self._store,
                overlay=self._overlay,
                forwarding=self._forwarding,
                lifecycle=self._lifecycle,
                publisher=self._publisher,
                preferences=self._preferences,
                captures=self._captures,
                netmapWatchers=self._netmapWatchers,
                prompt=self._prompt,
            )
            self._engine.startService()
        except TSRTError as error:
            self._lifecycle.failed(error)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Leave the tailnet; fires when nothing of the node is left."""
        if not self.running:
            return self._afterStop()
        self._lifecycle.stopping()
        self.running = 0
        self._stopping = Deferred.fromCoroutine(self._stop())
        return self._afterStop()

    def _afterStop(self) -> Deferred[None]:
        """Fire when a stop that is under way has ended."""
        done: Deferred[None] = Deferred()
        if self._stopping is None:
            done.callback(None)
        else:
            self._stopping.addCallback(lambda _: done.callback(None))
        return done

    async def _stop(self) -> None:
        try:
            await super().stopService()
            engine, self._engine = self._engine, None
            self._captures.attach(None)
            self._netmapWatchers.forget()
            if engine is not None:
                await maybeDeferred(engine.stopService)
        except Exception:
            _log.failure("the node did not stop cleanly")
        finally:
            nodes.remove(self._hostReactor, self._registryName, self)
            self._lifecycle.stopped()
            self._stopping = None

    async def __aenter__(self) -> Self:
        """Start the node."""
        self.startService()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the node and wait until it has."""
        await self.stopService()

    def up(self, timeout: float | None = None) -> Deferred[NodeStatus]:
        """
        Fire with the status once the node has addresses and is reachable.

        Fails with the L{TSRTError} that ended the attempt; with
        L{StartupTimeout}, which lists what was tried, after C{timeout}; with
        L{NeedsLogin} or L{NeedsApproval} if a person did not act until then;
        with L{NotRunning} if the node is stopped.  Cancelling stops waiting,
        not the node.

        @param timeout: seconds; C{None} for C{NodeConfig.startupTimeout}, which
            does not count while a person has to act.
        """
        if self.status.isRunning:
            return succeed(self.status)
        error = self.status.error
        if not self.running or error is not None:
            return fail(error or NotRunning("the node is not started"))
        seconds = self._config.startupTimeout if timeout is None else timeout
        return UpWaiter(
            self._hostReactor,
            self._core,
            seconds,
            timeout is None,
            lambda: "" if self._engine is None else self._engine.describeSteps(),
        ).result

    def logout(self) -> Deferred[None]:
        """
        Expire the node key at control and forget it.

        Fails with a L{TSRTError} if control cannot be told; the saved key is
        gone all the same.
        """
        return self._running().logout()

    # -- what the user wants ----------------------------------------------------------

    @property
    def preferences(self) -> Preferences:
        """What may be changed while the node runs, as it is at present."""
        return self._preferences.value

    def setPreferences(self, **changes: Any) -> None:
        """
        Change some preferences, whether the node runs or not.

        They are in force when this returns, and control is told of them at once;
        a stop and a start of the node do not undo them.

        @param changes: attributes of L{Preferences}.
        @raise ConfigError: there is no such preference, or no such value; nothing
            was changed then.
        """
        self._preferences.change(changes)

    @property
    def activeExitNode(self) -> Peer | None:
        """
        The peer through which packets go that no other route leads for.

        C{None} as well while the exit node that is wanted is not there: such
        packets go nowhere then.
        """
        return None if self._engine is None else self._engine.dispatcher.exit.node

    def suggestExitNode(self) -> Peer | None:
        """The exit node that is nearest, as far as that can be told."""
        engine = self._engine
        if engine is None:
            return None
        return suggestExit(engine.netmap.peers, engine.latencies())

    # -- talking over the tailnet ---------------------------------------------------

    @property
    def resolver(self) -> IHostnameResolver:
        """Resolves MagicDNS names."""
        return self.reactor.nameResolver

    def clientEndpoint(
        self, host: str, port: int, *, timeout: float = DEFAULT_TIMEOUT
    ) -> IStreamClientEndpoint:
        """
        An endpoint to a tailnet name or address.

        On a node that has given up it fails with what L{up} fails with.

        @param timeout: seconds for all of a connection attempt.
        """
        return TailnetClientEndpoint(self._usable, host, port, timeout)

    def serverEndpoint(
        self, port: int, *, interface: str = "", backlog: int = 50
    ) -> IStreamServerEndpoint:
        """
        An endpoint on a tailnet port.

        @param interface: C{""} for both families, C{"v4"}, C{"v6"}, or one of
            the node's addresses.
        """
        return TailnetServerEndpoint(lambda: self.reactor, port, backlog, interface)

    def agent(
        self,
        *,
        contextFactory: IPolicyForHTTPS | None = None,
        pool: HTTPConnectionPool | None = None,
        connectTimeout: float | None = None,
    ) -> IAgent:
        """An HTTP client of the tailnet, for C{twisted.web} or treq."""
        return makeAgent(self.reactor, contextFactory, pool, connectTimeout)

    def ping(
        self, host: str, *, kind: PingKind | str = PingKind.ICMP, timeout: float = 5.0
    ) -> Deferred[PingResult]:
        """
        Measure the way to a peer.

        Fails with L{NoSuchPeer} or L{TailnetTimeout}.  Cancelling forgets it.

        @param host: a tailnet name or address.
        @param kind: what is to answer: C{"ICMP"}, the peer's machine; C{"TSMP"},
            its tunnel; C{"disco"}, the peer by each path there may be.
        @param timeout: seconds to wait for the answer, once the node is up.
        """
        return Deferred.fromCoroutine(self._ping(host, PingKind.named(kind), timeout))

    async def _ping(self, host: str, kind: PingKind, timeout: float) -> PingResult:
        await self.up()
        return await self._running().pinger.ping(self._address(host), kind, timeout)

    def _address(self, host: str) -> bytes:
        try:
            return parseAddress(host)
        except WireError:
            found = self._overlay.resolve(host)
        if not found:
            raise NoSuchPeer(f"no node of the tailnet is called {host!r}")
        return found[0]

    def _usable(self) -> TailnetReactor:
        """The tailnet, unless the node has given up: who waits, waits in vain."""
        if self.status.error is not None:
            raise self.status.error
        return self.reactor

    def loopback(self) -> Deferred[Loopback]:
        """
        Open a port on 127.0.0.1 by which other programs reach the tailnet.

        It speaks SOCKS5 and HTTP proxying, wants a password that is made for it,
        knows the names of the tailnet only, and ends with the node.

        @return: fires with the port and its password; fails with L{NotRunning}.
        """
        return Deferred.fromCoroutine(self._loopback())

    async def _loopback(self) -> Loopback:
        self._running()
        return await openLoopback(
            self._hostReactor, self.tailnet(), self._seams.randbytes, self.apps
        )

    def tailnet(self) -> Tailnet:
        """What proxies of L{tsrt.services.proxy} need of this node."""
        return Tailnet(self.clientEndpoint, self.reactor, self._overlay.resolve)

    # -- knowing the tailnet ----------------------------------------------------------

    @property
    def status(self) -> NodeStatus:
        """The node at this moment."""
        return self._publisher.status

    def watchStatus(
        self, callback: Callable[[NodeStatus], object]
    ) -> Callable[[], None]:
        """
        Call C{callback} with the present status and with each new one.

        @return: a callable that ends this.
        """
        return self._publisher.watch(callback)

    def peers(self) -> tuple[Peer, ...]:
        """All peers, by their ids; none before the netmap has come."""
        engine = self._engine
        return () if engine is None else tuple(engine.netmap.peers)

    @property
    def netmap(self) -> NetworkMap:
        """
        The tailnet as it is at present, and goes on to be: a view.

        Its C{copy} stays as it is.  It is empty while the node does not run.
        """
        return NetworkMap() if self._engine is None else self._engine.netmap

    def watchNetmap(
        self, callback: Callable[[NetworkMap], object]
    ) -> Callable[[], None]:
        """
        Call C{callback} with the tailnet as it is, and each time that it changes.

        What it gets is the view of L{netmap}, with the change already in it; over
        stops and starts of the node it goes on.

        @return: a callable that ends this.
        """
        return self._netmapWatchers.watch(callback)

    def metricsText(self) -> str:
        """
        All counters, as Prometheus reads them.

        @raise NotRunning: the node is not started.
        """
        return self._running().metrics.text()

    def metrics(self) -> list[Metric]:
        """
        The same as values, for programs that have metrics of their own.

        @raise NotRunning: the node is not started.
        """
        return self._running().metrics.metrics()

    def peerByName(self, name: str) -> Peer | None:
        """The peer with a MagicDNS name, in short or in full."""
        engine = self._engine
        return None if engine is None else engine.netmap.peerByName(name.lower())

    def peerByIP(self, address: str) -> Peer | None:
        """The peer with a tailnet address."""
        engine = self._engine
        try:
            packed = parseAddress(address)
        except WireError:
            return None
        return None if engine is None else engine.netmap.peerByAddress(packed)

    def peersWithRoute(self, address: str) -> tuple[Peer, ...]:
        """
        The peers that offer the narrowest route to an address, by their ids.

        It is what they offer: packets go there only if routes are accepted, and
        to one of them.
        """
        engine = self._engine
        try:
            packed = parseAddress(address)
        except WireError:
            return ()
        return () if engine is None else peersWithRoute(engine.netmap.peers, packed)

    def backendStatus(self, peers: bool = True) -> dict[str, Any]:
        """
        The node and its tailnet as C{tailscale status --json} tells them.

        @param peers: whether to tell of peers and users, too.
        @return: values of JSON.
        @raise NotRunning: the node is not started.
        """
        return self._running().backendStatus.document(peers)

    def whois(self, address: IAddress | str) -> WhoIs:
        """
        Who is behind an address, with user and granted capabilities.

        @param address: as C{transport.getPeer()} gives it, or its text, with a
            port or without.
        @raise UnknownPeer: no node has this address.
        """
        text = address if isinstance(address, str) else getattr(address, "host", "")
        engine = self._engine
        try:
            packed = parseAddress(text)
        except WireError:
            try:
                packed = AddrPort.parse(text).address
            except WireError:
                raise UnknownPeer(f"{text!r} is not a tailnet address") from None
        found = None if engine is None else engine.whois(packed)
        if found is None:
            raise UnknownPeer(f"no node of the tailnet has the address {text}")
        return found

    def capturePcap(self, target: str | os.PathLike[str] | Writable) -> Capture:
        """
        Record all packets of the tailnet, for Wireshark.

        They are those that this node sends, and those from peers before any
        filter, in clear text; Tailscale's dissector for Wireshark shows them.
        Capturing goes on over stops and starts of the node until its C{stop} is
        called.

        @param target: the path of a file, which only this user may read, or
            anything with C{write}: a transport, which may pause (what comes
            meanwhile is counted, not kept), or a buffer.
        @raise ConfigError: the file cannot be written.
        """
        return self._captures.begin(target)

    def _running(self) -> Engine:
        if self._engine is None:
            raise NotRunning("the node is not running")
        return self._engine
