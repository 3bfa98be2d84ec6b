"""
Connecting with any server of a region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
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
from tsrt.derp.protocol import DERPClientProtocol
from tsrt.derp.race import Attempt, Race, RaceLost
from tsrt.derp.tls import RelayTLS, relayTLS
from tsrt.derp.upgrade import UpgradeProtocol
from tsrt.errors import RelayCertificateError, RelayError, WireError
from tsrt.interfaces import IStreamDialer
from tsrt.tailcfg import DERPNode, DERPRegion

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


class _UpgradeFactory(Factory[UpgradeProtocol]):
    noisy = False

    def __init__(self, protocol: UpgradeProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> UpgradeProtocol:
        return self._protocol


@implementer(IStreamClientEndpoint)
class RelayEndpoint:
    """
    Leads to whichever server of a region can be reached.

    C{connect} does everything up to and including the login, and wants a
    factory of L{DERPClientProtocol}.  It fails with a L{RelayError}, of which
    L{RelayCertificateError} goes before any other.
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
        self._reactor = reactor
        self._dialer = dialer
        self._region = region
        self._plain = plain
        self._preferIPv6 = preferIPv6
        self._timeout = timeout
        self._reached = reached
        self._failed = failed
        self._tls: dict[int, RelayTLS] = {}

    def __repr__(self) -> str:
        return f"<RelayEndpoint {self._region.regionCode or self._region.regionID}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        race = Race(self._reactor, list(self._attempts()))
        limit = self._timeout()
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
                failure = Failure(
                    RelayTimeout(
                        f"no connection with relay {self._name} within {limit:.0f} s"
                    )
                )
            elif isinstance(failure.value, RaceLost):
                failure = Failure(self._explain(failure.value.failures))
            if isinstance(failure.value, RelayError):
                self._failed(failure.value)
            return failure

        timer: IDelayedCall = self._reactor.callLater(limit, outOfTime)
        race.result.addBoth(decided)
        loggingIn = race.result.addCallback(self._login, protocolFactory)
        loggingIn.addErrback(explain)
        race.begin()
        return loggingIn

    @property
    def _name(self) -> str:
        return self._region.regionCode or str(self._region.regionID)

    def _explain(self, failures: list[Failure]) -> RelayError:
        errors = [f.value for f in failures if isinstance(f.value, RelayError)]
        for error in errors:
            if isinstance(error, RelayCertificateError):
                return error
        if len(failures) == len(errors) == 1:
            return errors[0]
        reasons = "; ".join(dict.fromkeys(f.getErrorMessage() for f in failures))
        return RelayUnreachable(
            f"no server of relay {self._name} can be reached: "
            f"{reasons or 'the relay map names none'}"
        )

    def _attempts(self) -> Iterator[Attempt[UpgradeProtocol]]:
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
    ) -> Callable[[Callable[[], None]], Deferred[UpgradeProtocol]]:
        def start(gotSomewhere: Callable[[], None]) -> Deferred[UpgradeProtocol]:
            return self._start(node, address, gotSomewhere)

        return start

    def _start(
        self,
        node: DERPNode,
        address: str | None,
        gotSomewhere: Callable[[], None],
    ) -> Deferred[UpgradeProtocol]:
        creator = None
        if not self._plain:
            creator = self._tls.get(id(node))
            if creator is None:
                creator = relayTLS(node, self._dialer.trustRoot)
                self._tls[id(node)] = creator
        nodes = self._region.nodes or [node]
        ideal = nodes[0].name if nodes[0] is not node else ""
        protocol = UpgradeProtocol(node.hostName, ideal, not self._plain)
        endpoint = self._dialer.endpoint(
            node.hostName, nodePort(node, self._plain), creator, address
        )
        connecting = endpoint.connect(_UpgradeFactory(protocol))

        def cancel(_: Deferred[UpgradeProtocol]) -> None:
            connecting.cancel()
            protocol.greeted.cancel()

        result: Deferred[UpgradeProtocol] = Deferred(cancel)

        def greeted(_: UpgradeProtocol) -> None:
            self._reached(node)
            result.callback(protocol)

        def failed(failure: Failure) -> None:
            if not result.called:
                result.errback(failure)

        def notConnected(failure: Failure) -> None:
            if not failure.check(CancelledError, ConnectingCancelledError):
                where = f"{node.hostName} ({address})" if address else node.hostName
                message = failure.getErrorMessage()
                failure = Failure(RelayUnreachable(f"{where}: {message}"))
            failed(failure)

        protocol.greeted.addCallbacks(greeted, failed)
        connecting.addCallbacks(lambda _: gotSomewhere(), notConnected)
        return result

    def _login(
        self, upgrade: UpgradeProtocol, protocolFactory: IProtocolFactory
    ) -> IProtocol:
        protocol = upgrade.handOver(protocolFactory)
        greeting = upgrade.greeting
        if protocol is None or greeting is None:
            raise NoProtocol
        try:
            # A ClientService gives us a proxy of its own around the protocol.
            cast(DERPClientProtocol, protocol).begin(greeting)
        except WireError as malformed:
            upgrade.disown()
            raise RelayProtocolError(f"{self._name}: {malformed}") from malformed
        return protocol
