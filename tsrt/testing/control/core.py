"""
Joins the parts of the control server to each other; knows nothing of sockets.

Every change of the state comes by here once and leads to one round in which
all map streams are told, in the next turn of the reactor.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tsrt.tailcfg import MapResponse
from tsrt.tailcfg.capabilities import FILE_SHARING
from tsrt.testing.control.api import MachineAPI
from tsrt.testing.control.delta import ToldState
from tsrt.testing.control.faults import Faults
from tsrt.testing.control.h2server import ServerStream
from tsrt.testing.control.idtoken import TokenSigner
from tsrt.testing.control.pings import PendingPings
from tsrt.testing.control.polls import MapPoll, PollTable
from tsrt.testing.control.pool import AddressPool
from tsrt.testing.control.presence import Presence
from tsrt.testing.control.records import NodeRecord
from tsrt.testing.control.registration import Registrar
from tsrt.testing.control.settings import ControlConfig
from tsrt.testing.control.tailnet import Tailnet
from tsrt.testing.control.views import NetworkView
from tsrt.testing.policy import Policy, checkTests, parsePolicy

EPOCH = 1767225600.0
"""The start of 2026, where the calendar of simulated clocks begins."""

_REAL = 1e9
"""Clocks that show more than this count from 1970."""


def wallClock(reactor: IReactorTime) -> Callable[[], float]:
    """
    The calendar time that goes with a reactor.

    Real reactors count seconds from 1970.  Simulated ones usually start at
    zero; then the calendar starts at L{EPOCH}, since clients distrust dates
    before their own making.

    @param reactor: real or simulated.
    """

    def now() -> float:
        seconds = reactor.seconds()
        return seconds if seconds > _REAL else EPOCH + seconds

    return now


class ControlCore:
    """
    The parts of a control server, at work.

    @ivar tailnet: the state.
    @ivar view: what nodes are told.
    @ivar registrar: answers register requests.
    @ivar polls: the map streams.
    @ivar pings: open questions to nodes.
    @ivar faults: failures on demand.
    @ivar signer: signs identity tokens.
    @ivar api: answers the requests of nodes.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        config: ControlConfig,
        *,
        randbytes: Callable[[int], bytes],
        wallTime: Callable[[], float],
        url: Callable[[], str],
        loginURL: Callable[[str], str],
    ) -> None:
        """
        @param reactor: provides time.
        @param config: the configuration.
        @param randbytes: the source of secret random bytes.
        @param wallTime: seconds since 1970.
        @param url: the address of the server.
        @param loginURL: makes the URL of a login from its id.
        @raise PolicyError: if the configured policy is malformed.
        """
        self._reactor = reactor
        self._config = config
        self._randbytes = randbytes
        self._wallTime = wallTime
        self._running = False
        self._expiry: IDelayedCall | None = None
        self.faults = Faults()
        self.pings = PendingPings(reactor, randbytes)
        self.signer = TokenSigner(config.domain, url, randbytes)
        self.tailnet = Tailnet(
            config.domain,
            randbytes,
            pool=AddressPool(config.ipv4, config.ipv6),
            changed=self.changed,
        )
        attributes = dict(config.attributes)
        if config.fileSharing:
            attributes.setdefault(FILE_SHARING, ())
        self.view = NetworkView(
            self.tailnet,
            policy=Policy.allowAll(),
            dns=config.dns,
            derpMap=config.derpMap,
            attributes=attributes,
            wallTime=wallTime,
        )
        if config.policy:
            self.setPolicy(config.policy)
        self.registrar = Registrar(
            self.tailnet,
            config.registration,
            policy=self.view.compiled,
            loginURL=loginURL,
            admitted=self._admitted,
            removed=self.removeNode,
            randbytes=randbytes,
        )
        self.presence = Presence(
            reactor,
            self.tailnet,
            wallTime=wallTime,
            removed=self.removeNode,
            grace=config.offlineGrace,
            ephemeralTimeout=config.ephemeralTimeout,
        )
        self.polls = PollTable(
            reactor,
            prepare=self._prepare,
            arrived=self.presence.arrived,
            left=self.presence.left,
        )
        self.api = MachineAPI(
            reactor=reactor,
            tailnet=self.tailnet,
            registrar=self.registrar,
            pings=self.pings,
            signer=self.signer,
            faults=self.faults,
            minimumVersion=config.minimumVersion,
            wallTime=wallTime,
            openPoll=self._openPoll,
            fullFrame=self._fullFrame,
        )
        for name in config.users:
            self.tailnet.addUser(name, wallTime())

    # -- starting and stopping ----------------------------------------------------

    def start(self) -> None:
        """Begin to follow who is there; nobody is, as yet."""
        self._running = True
        for node in self.tailnet.nodes():
            self.presence.left(node)
        self.changed()

    def stop(self) -> None:
        """End all streams and timers; the state stays."""
        self._running = False
        self.polls.stop()
        self.presence.stop()
        self.pings.stop()
        self._stopExpiry()

    # -- changes ----------------------------------------------------------------------

    def changed(self) -> None:
        """Something that nodes are told has changed."""
        self.view.invalidate()
        if self._running:
            self.polls.flushSoon()

    def setPolicy(self, text: str) -> None:
        """
        Put another policy in force.

        @param text: the document; empty to let all talk with all.
        @raise PolicyError: if it is malformed or a test in it fails; the one
            before stays in force.
        """
        policy = parsePolicy(text) if text else Policy.allowAll()
        checkTests(policy, [node.subject() for node in self.tailnet.nodes()])
        self.view.setPolicy(policy)
        self.changed()

    def removeNode(self, node: NodeRecord) -> None:
        """Delete a node; its stream ends and its peers forget it."""
        self.polls.close(node)
        self.presence.forget(node)
        self.view.forget(node)
        self.tailnet.removeNode(node)

    def _admitted(self, node: NodeRecord) -> None:
        """A node was let in; what it does under an older key is over."""
        poll = self.polls.of(node)
        if poll is not None and poll.key != node.nodeKey:
            self.polls.close(node)
        elif poll is None and self._running:
            self.presence.left(node)

    def _prepare(self) -> None:
        """Settle everything that follows from the present state."""
        policy = self.view.policy
        if policy.routeApprovers or policy.exitApprovers:
            self._approveRoutes()
        self._watchExpiry()

    def _approveRoutes(self) -> None:
        """Approve what the policy approves without being asked."""
        for node in self.tailnet.nodes():
            waiting = [
                route
                for route in node.advertisedRoutes
                if route not in node.approvedRoutes
                and self.view.compiled().approves(route, node.subject())
            ]
            if waiting:
                self.tailnet.approveRoutes(node, {*node.approvedRoutes, *waiting})

    def _watchExpiry(self) -> None:
        """Have everybody told when the next key ends."""
        now = self._wallTime()
        ends = [
            node.expires
            for node in self.tailnet.nodes()
            if node.expires is not None and node.expires > now
        ]
        self._stopExpiry()
        if ends and self._running:
            # Not a hair too early: at the time itself the key has ended.
            delay = max(0.0, min(ends) - now)
            self._expiry = self._reactor.callLater(delay, self._keyEnded)

    def _keyEnded(self) -> None:
        self._expiry = None
        self.changed()

    def _stopExpiry(self) -> None:
        expiry, self._expiry = self._expiry, None
        if expiry is not None and expiry.active():
            expiry.cancel()

    # -- maps -------------------------------------------------------------------------

    def _openPoll(
        self, stream: ServerStream, node: NodeRecord, compression: str
    ) -> None:
        self.polls.open(
            MapPoll(
                self._reactor,
                stream,
                node,
                ToldState(self.view, node, self._wallTime),
                compression=compression,
                limit=self._config.pollLimit,
                interval=self._interval,
                again=self.polls.flushSoon,
                ended=self.polls.ended,
            )
        )

    def _fullFrame(self, node: NodeRecord) -> MapResponse:
        self._prepare()
        return ToldState(self.view, node, self._wallTime).first()

    def _interval(self) -> float:
        """Seconds until the next keep-alive; varied, so that they spread out."""
        low, high = self._config.keepAlive
        share = int.from_bytes(self._randbytes(2), "big") / 65536
        return low + (high - low) * share
