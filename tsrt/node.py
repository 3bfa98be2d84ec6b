"""
The one class to learn: a node of a tailnet.

It delegates; the parts are made in L{tsrt.runtime.build}.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent, IPolicyForHTTPS

from tsrt.addresses import parseAddress
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
    WireError,
)
from tsrt.failures import NoSuchPeer
from tsrt.interfaces import ILoginPrompt, IStateStore
from tsrt.keys import Secret
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.routes import buildRoutes
from tsrt.netstack.stack import Stack
from tsrt.overlay.fallback import (
    FallbackHandlers,
    FallbackRegistration,
    FallbackTCPHandler,
)
from tsrt.reactor import TailnetReactor
from tsrt.registry import DEFAULT_NAME, Registry
from tsrt.runtime.build import Engine, buildEngine
from tsrt.runtime.capture import CaptureHub
from tsrt.runtime.forwarding import ForwardingOverlay
from tsrt.runtime.lifecycle import LifecycleCore, makeLifecycle
from tsrt.runtime.notify import NotifyBus
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.ping import PingResult
from tsrt.runtime.pings import PingKind
from tsrt.runtime.preferences import PreferenceCell, Preferences
from tsrt.runtime.services import OrderedMultiService
from tsrt.runtime.status import NodeStatus, StatusPublisher
from tsrt.runtime.waiting import UpWaiter, waitUntilRunning
from tsrt.runtime.watchers import Watchers
from tsrt.services.forwarder.lanaccess import LANAccess
from tsrt.services.forwarder.making import makeForwarder
from tsrt.services.loopback import Loopback, openLoopback
from tsrt.services.proxy import Tailnet
from tsrt.state import FileStateStore
from tsrt.tailnetview import TailnetView
from tsrt.web import makeAgent

_log = Logger(namespace="tsrt.node")

nodes: Registry[Node] = Registry()
"""The nodes of this process that endpoint strings can name."""


class Node(TailnetView, OrderedMultiService):
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
        self._notifications = NotifyBus()
        self._publisher.watch(self._notifications.statusChanged)
        self._netmapWatchers.watch(self._notifications.netmapChanged)
        self._preferences.watch(self._notifications.prefsChanged)
        self._core = LifecycleCore(self._publisher)
        self._lifecycle = makeLifecycle(self._core)
        self._overlay = NodeOverlay(reactor, Stack(randbytes=self._seams.randbytes))
        self._engine: Engine | None = None
        self._stopping: Deferred[None] | None = None
        self._forwarding = ForwardingOverlay(
            reactor, self._overlay, self._seams.randbytes
        )
        self._fallbackHandlers = FallbackHandlers()
        makeForwarder(
            reactor,
            self._config,
            self._seams,
            self._forwarding,
            self._fallbackHandlers,
        ).setServiceParent(self)
        self._overlay.useFallback(self._fallbackHandlers)
        self.reactor = TailnetReactor(
            self._overlay,
            LANAccess(
                reactor,
                lambda: self._preferences.value,
                lambda: self._seams.interfaces(reactor),
                self._leadsTo,
            ),
        )
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

    def login(self, authKey: str | Secret | None = None) -> Deferred[None]:
        """
        Log in again, with a new node key, while the node runs.

        The node goes on with the key that it has until it is let in with the new
        one.  Without a valid auth key a person has to open a page, see
        C{status.loginURL}.  Fails with a L{TSRTError} if control refuses.

        @param authKey: used from now on instead of the one of the configuration.
        """
        if isinstance(authKey, str):
            authKey = Secret(authKey) if authKey else None
        return self._running().login(authKey)

    def idToken(self, audience: str) -> Deferred[str]:
        """
        A token of OpenID Connect by which control says who this node is.

        Fails with L{NotSupportedByControl} where control makes none.

        @param audience: who is to believe it.
        """
        return self._running().control.idToken(audience)

    def waitUntilRunning(self, timeout: float | None = None) -> Deferred[None]:
        """
        Wait while the node may come up by itself, and no longer.

        Fails at once when somebody has to act (L{NeedsLogin}, L{NeedsApproval},
        L{KeyExpired}), when the node has given up or is not started; and with
        L{StartupTimeout} after the time-out.  L{up} is more patient.

        @param timeout: seconds; C{None} for no limit.
        """
        return waitUntilRunning(self._hostReactor, self.watchStatus, timeout)

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

    def registerFallbackTCPHandler(
        self, handler: FallbackTCPHandler
    ) -> FallbackRegistration:
        """
        Let C{handler} have connections to ports that nobody listens on.

        Those to networks that this node advertises are offered to it, too, before
        they are forwarded.  The first handler that does not answer C{None} counts;
        what no handler takes is refused, or forwarded if it is for a network.

        @param handler: called with source and destination of each connection, before
            that is answered; returns a protocol factory, L{tsrt.REFUSE} or C{None}.
        @return: what withdraws it.
        """
        return self._fallbackHandlers.register(handler)

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

    def _leadsTo(self, packed: bytes) -> bool:
        """Whether a peer leads to an address, by another route than an exit's."""
        accept = self._preferences.value.acceptRoutes
        table = buildRoutes(self.netmap.peers, accept)
        return packed in table

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
