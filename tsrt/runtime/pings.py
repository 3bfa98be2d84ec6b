"""
Pings of every kind that people know: of the machine, of the tunnel, of the path.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from tsrt.addresses import MTU, formatAddress
from tsrt.errors import ConfigError
from tsrt.failures import NoSuchPeer, TailnetTimeout
from tsrt.netmap.netmap import NetworkMap
from tsrt.netmap.node import Node
from tsrt.path.places import Relayed, describe
from tsrt.path.status import PongReceived
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.paths import PathService
from tsrt.runtime.ping import REPEAT_AFTER, EchoRequest, PingResult
from tsrt.runtime.tsmp import TSMPResponder
from tsrt.wire import tsmp
from tsrt.wire.ip import PROTOCOL_TSMP, buildPackets

T = TypeVar("T")


class PingKind(enum.Enum):
    """What is asked for an answer, by the names that Tailscale uses."""

    ICMP = "ICMP"
    """The TCP/IP stack of the peer: an ordinary ping through the tunnel."""

    TSMP = "TSMP"
    """The peer's tunnel, before any filter."""

    DISCO = "disco"
    """The peer itself, by every path there may be, outside of the tunnel."""

    @classmethod
    def named(cls, name: str | PingKind) -> PingKind:
        """
        The kind that has a name, in capitals or not.

        @raise ConfigError: there is none.
        """
        for kind in cls:
            if kind is name or str(name).lower() == kind.value.lower():
                return kind
        names = ", ".join(kind.value for kind in cls)
        raise ConfigError(f"{name!r} is no kind of ping", advice=f"Use {names}.")


class Pinger:
    """Pings peers, as long as a node runs."""

    def __init__(
        self,
        reactor: IReactorTime,
        overlay: NodeOverlay,
        paths: PathService,
        responder: TSMPResponder,
        *,
        randbytes: Callable[[int], bytes],
        netmap: Callable[[], NetworkMap],
        send: Callable[[bytes, list[bytes]], object],
        describePath: Callable[[bytes], str],
        regionName: Callable[[int], str],
    ) -> None:
        """
        @param netmap: gives the netmap at present.
        @param send: takes packets through the tunnel to a peer, by its raw key.
        @param describePath: tells how packets get to an address, in words.
        @param regionName: tells the name of a relay region.
        """
        self._reactor = reactor
        self._overlay = overlay
        self._paths = paths
        self._responder = responder
        self._randbytes = randbytes
        self._netmap = netmap
        self._send = send
        self._describePath = describePath
        self._regionName = regionName

    async def ping(self, packed: bytes, kind: PingKind, timeout: float) -> PingResult:
        """
        Ping a tailnet address.

        @param timeout: seconds to wait for an answer.
        @raise NoSuchPeer: nobody has the address, or it cannot be asked so.
        @raise TailnetTimeout: no answer came in time.
        """
        node = self._netmap().nodeByAddress(packed)
        if kind is PingKind.ICMP:
            seconds = await EchoRequest(self._overlay, packed, timeout).answered
            path = self._describePath(packed)
        else:
            if node is None or node is self._netmap().selfNode:
                raise NoSuchPeer(
                    f"no peer has the address {formatAddress(packed)}; only peers "
                    f"answer {kind.value} pings"
                )
            if kind is PingKind.TSMP:
                seconds = await self._tsmp(node, packed, timeout)
                path = self._describePath(packed)
            else:
                pong = await self._disco(node, packed, timeout)
                seconds, path = pong.seconds, self._describe(pong)
        return PingResult(
            address=formatAddress(packed),
            name=node.name if node is not None else "",
            seconds=seconds,
            path=path,
        )

    def _describe(self, pong: PongReceived) -> str:
        place = pong.place
        if isinstance(place, Relayed):
            return f"relay {self._regionName(place.region)}"
        return describe(place)

    async def _disco(self, node: Node, packed: bytes, timeout: float) -> PongReceived:
        key = node.key.raw
        return await _Repeated(
            self._reactor, lambda: self._paths.ping(key), packed, timeout
        ).answered

    async def _tsmp(self, node: Node, packed: bytes, timeout: float) -> float:
        own = next(
            (a for a in self._overlay.localAddresses() if len(a) == len(packed)), None
        )
        if own is None:
            raise NoSuchPeer(
                f"this node has no address of the family of {formatAddress(packed)}"
            )
        key = node.key.raw

        def once() -> Deferred[float]:
            data = self._randbytes(8)
            began = self._overlay.now()
            answered = self._responder.expect(key, data)
            body = tsmp.Ping(data).encode()
            self._send(key, buildPackets(own, packed, PROTOCOL_TSMP, body, MTU, 0))
            return answered.addCallback(lambda _: self._overlay.now() - began)

        return await _Repeated(self._reactor, once, packed, timeout).answered


class _Repeated(Generic[T]):
    """Asks again every second, until one of the questions is answered."""

    def __init__(
        self,
        reactor: IReactorTime,
        ask: Callable[[], Deferred[T]],
        packed: bytes,
        timeout: float,
    ) -> None:
        self._reactor = reactor
        self._ask = ask
        self._who = formatAddress(packed)
        self._timeout = timeout
        self._asked: list[Deferred[T]] = []
        self.answered: Deferred[T] = Deferred(self._cancelled)
        self._next: IDelayedCall | None = None
        self._limit: IDelayedCall | None = reactor.callLater(timeout, self._over)
        self._again()

    def _cancelled(self, _: object) -> None:
        self._end()

    def _again(self) -> None:
        self._next = self._reactor.callLater(REPEAT_AFTER, self._again)
        asking = self._ask()
        self._asked.append(asking)
        asking.addCallbacks(self._done, self._failed)

    def _done(self, answer: T) -> None:
        if self._end():
            self.answered.callback(answer)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None and self._end():
            self.answered.errback(failure)

    def _over(self) -> None:
        self._limit = None
        if self._end():
            self.answered.errback(
                Failure(
                    TailnetTimeout(
                        f"{self._who} did not answer a ping within "
                        f"{self._timeout:g} seconds"
                    )
                )
            )

    def _end(self) -> bool:
        """Ask no more; whether this is the first end."""
        isFirst = self._next is not None
        for call in (self._next, self._limit):
            if call is not None and call.active():
                call.cancel()
        self._next = self._limit = None
        asked, self._asked = self._asked, []
        for asking in asked:
            asking.cancel()
        return isFirst
