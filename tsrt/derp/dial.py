"""
Connecting with any server of a region.

L{RegionDialer} finds a server that can be reached, for whatever purpose;
L{RelayEndpoint} does so for the purpose of relaying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.derp.failures import RelayProtocolError, RelayTimeout, RelayUnreachable
from tsrt.derp.opening import OpeningProtocol
from tsrt.derp.protocol import DERPClientProtocol
from tsrt.derp.race import Attempt, Race, RaceLost
from tsrt.derp.tls import RelayTLS, relayTLS
from tsrt.derp.upgrade import UpgradeProtocol, httpHost
from tsrt.errors import RelayCertificateError, RelayError, WireError
from tsrt.interfaces import IStreamDialer
from tsrt.tailcfg import DERPNode, DERPRegion

P = TypeVar("P", bound=OpeningProtocol)
T = TypeVar("T")

NODE_DELAY = 1.5
"""Seconds that one server of a region has before the next is tried as well."""

FAMILY_DELAY = 0.2
"""Seconds that one address of a server has before the next is tried as well."""

CONNECT_TIMEOUT = 10.0
"""Seconds for everything from the first packet to the login."""

HTTPS_PORT = 443
PLAIN_PORT = 3340


def nodePort(node: DERPNode, plain: bool = False) -> int:
    """The TCP port of a relay server."""
    return node.derpPort or (PLAIN_PORT if plain else HTTPS_PORT)


def nodeAddresses(node: DERPNode) -> Iterator[str | None]:
    """
    Yield the addresses at which a server is to be tried, in order.

    C{None} stands for what DNS says.  A family that the map switches off is
    not tried; where the map gives an address, DNS is the last resort.
    """
    byName = False
    for text, length in ((node.ipv4, 4), (node.ipv6, 16)):
        if not text:
            byName = True
            continue
        try:
            if len(parseAddress(text)) == length:
                yield text
        except WireError:
            # Any other word means that the family is not to be used.
            continue
    if byName:
        yield None


def relayNodes(region: DERPRegion) -> list[DERPNode]:
    """The servers of a region that relay, in order of preference."""
    return [node for node in region.nodes or () if not node.stunOnly]


class _OneProtocol(Factory[P]):
    """A factory for a single connection."""

    noisy = False

    def __init__(self, protocol: P) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> P:
        return self._protocol


class RegionDialer(Generic[P]):
    """
    Connects with one server of a region.

    The servers are tried in the order of the map, each at all its addresses;
    the first that proves useful is taken.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        region: DERPRegion,
        build: Callable[[DERPNode, bool], P],
        *,
        plain: bool = False,
        preferIPv6: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        @param build: makes the protocol for a server; told whether the
            connection will be TLS.
        @param plain: do without TLS, which only debugging wants.
        @param preferIPv6: whether IPv6 goes first.
        """
        self._reactor = reactor
        self._dialer = dialer
        self._region = region
        self._build = build
        self._plain = plain
        self._preferIPv6 = preferIPv6
        self._tls: dict[int, RelayTLS] = {}

    @property
    def name(self) -> str:
        """What messages call the region."""
        return self._region.regionCode or str(self._region.regionID)

    def dial(self, limit: float) -> Deferred[P]:
        """
        Connect.

        @param limit: the most seconds that it may take.
        @return: fires with the protocol of the server that was taken; fails
            with a L{RelayError}, of which L{RelayCertificateError} goes before
            any other; may be cancelled.
        """
        race = Race(self._reactor, list(self._attempts()))
        late: list[bool] = []

        def outOfTime() -> None:
            late.append(True)
            race.result.cancel()

        def decided(result: T) -> T:
            if timer.active():
                timer.cancel()
            return result

        def explain(failure: Failure) -> Failure:
            if late:
                return Failure(
                    RelayTimeout(
                        f"no connection with relay {self.name} within {limit:.0f} s"
                    )
                )
            if isinstance(failure.value, RaceLost):
                return Failure(self._explain(failure.value.failures))
            return failure

        timer: IDelayedCall = self._reactor.callLater(limit, outOfTime)
        race.result.addBoth(decided)
        race.result.addErrback(explain)
        race.begin()
        return race.result

    def _explain(self, failures: list[Failure]) -> RelayError:
        errors = [f.value for f in failures if isinstance(f.value, RelayError)]
        for error in errors:
            if isinstance(error, RelayCertificateError):
                return error
        if len(failures) == len(errors) == 1:
            return errors[0]
        reasons = "; ".join(dict.fromkeys(f.getErrorMessage() for f in failures))
        return RelayUnreachable(
            f"no server of relay {self.name} can be reached: "
            f"{reasons or 'the relay map names none'}"
        )

    def _attempts(self) -> Iterator[Attempt[P]]:
        for node in relayNodes(self._region):
            addresses = list(nodeAddresses(node))
            if self._preferIPv6():
                addresses.sort(key=lambda text: text is None or ":" not in text)
            delay = NODE_DELAY
            for address in addresses:
                yield Attempt(delay, self._starter(node, address))
                delay = FAMILY_DELAY

    def _starter(
        self, node: DERPNode, address: str | None
    ) -> Callable[[Callable[[], None]], Deferred[P]]:
        def start(gotSomewhere: Callable[[], None]) -> Deferred[P]:
            return self._start(node, address, gotSomewhere)

        return start

    def _start(
        self,
        node: DERPNode,
        address: str | None,
        gotSomewhere: Callable[[], None],
    ) -> Deferred[P]:
        try:
            httpHost(node.hostName)
        except WireError as malformed:
            return fail(RelayUnreachable(str(malformed)))
        creator = None
        if not self._plain:
            creator = self._tls.get(id(node))
            if creator is None:
                creator = relayTLS(node, self._dialer.trustRoot)
                self._tls[id(node)] = creator
        protocol = self._build(node, not self._plain)
        endpoint = self._dialer.endpoint(
            node.hostName, nodePort(node, self._plain), creator, address
        )
        connecting = endpoint.connect(_OneProtocol(protocol))

        def cancel(_: Deferred[P]) -> None:
            connecting.cancel()
            protocol.ready.cancel()

        result: Deferred[P] = Deferred(cancel)

        def failed(failure: Failure) -> None:
            if not result.called:
                result.errback(failure)

        def notConnected(failure: Failure) -> None:
            if not failure.check(CancelledError, ConnectingCancelledError):
                where = f"{node.hostName} ({address})" if address else node.hostName
                message = failure.getErrorMessage()
                failure = Failure(RelayUnreachable(f"{where}: {message}"))
            failed(failure)

        protocol.ready.addCallbacks(lambda _: result.callback(protocol), failed)
        connecting.addCallbacks(lambda _: gotSomewhere(), notConnected)
        return result


@implementer(IStreamClientEndpoint)
class RelayEndpoint:
    """
    Leads to whichever server of a region can be reached.

    C{connect} does everything up to and including the login, and wants a
    factory of L{DERPClientProtocol}.  It fails as L{RegionDialer.dial} does.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        dialer: IStreamDialer,
        region: DERPRegion,
        *,
        plain: bool = False,
        preferIPv6: Callable[[], bool] = lambda: False,
        timeout: Callable[[], float] = lambda: CONNECT_TIMEOUT,
        reached: Callable[[DERPNode], None] = lambda node: None,
        failed: Callable[[RelayError], None] = lambda error: None,
    ) -> None:
        """
        @param plain: do without TLS, which only debugging wants.
        @param preferIPv6: whether IPv6 goes first.
        @param timeout: the limit for the next connection, in seconds.
        @param reached: told which server was connected with.
        @param failed: told how a connection failed.
        """
        self._region = region
        self._timeout = timeout
        self._reached = reached
        self._failed = failed
        self._dialer = RegionDialer(
            reactor, dialer, region, self._build, plain=plain, preferIPv6=preferIPv6
        )

    def __repr__(self) -> str:
        return f"<RelayEndpoint {self._dialer.name}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        dialling = self._dialer.dial(self._timeout())
        return dialling.addCallback(self._login, protocolFactory).addErrback(self._note)

    def _build(self, node: DERPNode, isTLS: bool) -> UpgradeProtocol:
        first = (self._region.nodes or [node])[0]
        return UpgradeProtocol(node, "" if first is node else first.name, isTLS)

    def _note(self, failure: Failure) -> Failure:
        if isinstance(failure.value, RelayError):
            self._failed(failure.value)
        return failure

    def _login(
        self, upgrade: UpgradeProtocol, protocolFactory: IProtocolFactory
    ) -> IProtocol:
        self._reached(upgrade.node)
        protocol = upgrade.handOver(protocolFactory)
        greeting = upgrade.greeting
        if protocol is None or greeting is None:
            raise NoProtocol
        try:
            # A ClientService gives us a proxy of its own around the protocol.
            cast(DERPClientProtocol, protocol).begin(greeting)
        except WireError as malformed:
            upgrade.disown()
            raise RelayProtocolError(f"{self._dialer.name}: {malformed}") from malformed
        return protocol
