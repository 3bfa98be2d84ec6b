"""
What routers serve to those inside: NAT-PMP, PCP and UPnP.

Each runs on the router of a simulated network, which must have a NAT, and maps
ports there::

    home = internet.network("home", nat=NAT_KINDS["symmetric"])
    gateway = PortControlGateway(home, pcp=False)
    gateway.startService()

The attributes make it a bad router: one that refuses, forgets or lies.

Reference: RFC 6886, RFC 6887; UPnP Device Architecture 1.1, WANIPConnection:1
and :2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection

from twisted.application.service import Service
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import (
    DatagramProtocol,
    Protocol,
    ServerFactory,
    connectionDone,
)
from twisted.python.failure import Failure

from tsrt.addresses import formatAddress, fromMapped, parseAddress, toMapped
from tsrt.errors import WireError
from tsrt.testing.hosts import HostReactor
from tsrt.testing.nat import NAT
from tsrt.testing.networks import Network
from tsrt.wire import ssdp, upnp

PORT = 5351
DESCRIPTION_PORT = 5000

_UDP = 17


class Gateway(Service):
    """
    What all of them have.

    @ivar network: the network inside.
    @ivar external: the address that it claims to have outside; C{None} for the
        true one.
    @ivar delay: seconds by which answers are late.
    @ivar isSilent: whether it answers nobody.
    """

    def __init__(self, network: Network) -> None:
        """
        @raise ValueError: when the network is behind no NAT.
        """
        if not isinstance(network.nat, NAT):
            raise ValueError(f"the router of {network.name} translates nothing")
        self.network = network
        self.nat: NAT = network.nat
        self.host: HostReactor = network.gatewayHost()
        self.external: str | None = None
        self.delay = 0.0
        self.isSilent = False
        self._ports: list[IListeningPort] = []

    def address(self) -> bytes:
        """The address outside, packed."""
        return parseAddress(self.external or self.nat.external)

    def later(self, what: Callable[..., object], *arguments: object) -> None:
        """Do something when it is time to answer."""
        if self.isSilent:
            return
        if self.delay:
            self.host.callLater(self.delay, what, *arguments)
        else:
            what(*arguments)

    def startService(self) -> None:
        """Open the ports."""
        super().startService()
        self._ports = self.listen()

    def stopService(self) -> None:
        """Close them."""
        super().stopService()
        ports, self._ports = self._ports, []
        for port in ports:
            port.stopListening()

    def listen(self) -> list[IListeningPort]:
        """Open the ports; to be overridden."""
        raise NotImplementedError

    def reboot(self) -> None:
        """Forget all mappings, as routers do when they are switched on again."""
        self.nat.reset()

    def mapPort(
        self, owner: str, internal: int, wanted: int, lifetime: float
    ) -> int | None:
        """Map a UDP port; with a lifetime of zero, give it back."""
        if not lifetime:
            self.nat.unmapPort("udp", owner, internal)
            return 0
        now = self.host.seconds()
        return self.nat.mapPort("udp", owner, internal, wanted, lifetime, now)


class PortControlGateway(Gateway):
    """
    NAT-PMP and PCP, which share a port.

    @ivar pmp: whether NAT-PMP is spoken; C{pcp} likewise.
    @ivar result: what all requests are answered with; 0 does what they want.
    @ivar longest: the most seconds that a mapping gets.
    @ivar asked: the requests, as (version, operation).
    @ivar began: when it was switched on.
    @ivar source: another port from which the answers come, if not 0.
    """

    def __init__(self, network: Network, *, pmp: bool = True, pcp: bool = True) -> None:
        super().__init__(network)
        self.pmp = pmp
        self.pcp = pcp
        self.result = 0
        self.longest = 7200
        self.asked: list[tuple[int, int]] = []
        self.source = 0
        self.began = self.host.seconds()

    def listen(self) -> list[IListeningPort]:
        """Open the port."""
        self._protocol = _PortControl(self)
        return [self.host.listenUDP(PORT, self._protocol)]

    def reboot(self) -> None:
        """Forget all mappings, and begin to count anew."""
        super().reboot()
        self.began = self.host.seconds()

    @property
    def epoch(self) -> int:
        """Seconds since the router forgot everything."""
        return int(self.host.seconds() - self.began)

    def answer(self, request: bytes, owner: str) -> bytes | None:
        """What a request is answered with, if at all."""
        if len(request) < 2:
            return None
        version, op = request[0], request[1]
        self.asked.append((version, op))
        if version == 0 and self.pmp:
            return self._answerPMP(op, request, owner)
        if version == 2 and self.pcp:
            return self._answerPCP(op, request, owner)
        if version == 2 and self.pmp:
            # RFC 6886, 3.5: the version that is known, and "unsupported".
            return struct.pack("!BBHI", 0, 0x80 | op, 1, self.epoch) + bytes(8)
        if version == 0 and self.pcp:
            return struct.pack("!BBBBII12x", 2, 0x80 | op, 0, 1, 0, self.epoch)
        return None

    def _answerPMP(self, op: int, request: bytes, owner: str) -> bytes | None:
        head = struct.pack("!BBHI", 0, 0x80 | op, self.result, self.epoch)
        if op == 0:
            return head + (bytes(4) if self.result else self.address())
        if op != 1 or len(request) != 12:
            return None
        internal, wanted, lifetime = struct.unpack_from("!HHI", request, 4)
        if self.result:
            return head + struct.pack("!HHI", internal, 0, 0)
        lifetime = min(lifetime, self.longest)
        port = self.mapPort(owner, internal, wanted, lifetime)
        if port is None:
            head = struct.pack("!BBHI", 0, 0x81, 4, self.epoch)
        return head + struct.pack("!HHI", internal, port or 0, lifetime)

    def _answerPCP(self, op: int, request: bytes, owner: str) -> bytes | None:
        if len(request) < 24 or len(request) % 4:
            return None
        (lifetime,) = struct.unpack_from("!I", request, 4)
        result = self.result
        if fromMapped(request[8:24]) != parseAddress(owner):
            result = 12
        lifetime = min(lifetime, self.longest)
        body = b""
        if op == 1:
            if len(request) < 60 or request[36] != _UDP:
                return None
            internal, wanted = struct.unpack_from("!HH", request, 40)
            port: int | None = 0
            if not result:
                port = self.mapPort(owner, internal, wanted, lifetime)
                result = 8 if port is None else 0
            body = request[24:40] + struct.pack(
                "!HH16s", internal, port or 0, toMapped(self.address())
            )
        elif op:
            return None
        head = struct.pack("!BBBBII12x", 2, 0x80 | op, 0, result, lifetime, self.epoch)
        return head + body


class _PortControl(DatagramProtocol):
    """The port of a L{PortControlGateway}."""

    def __init__(self, gateway: PortControlGateway) -> None:
        self._gateway = gateway

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        answer = self._gateway.answer(datagram, addr[0])
        if answer is not None:
            self._gateway.later(self._answer, answer, addr)

    def _answer(self, answer: bytes, addr: tuple[str, int]) -> None:
        gateway = self._gateway
        if gateway.source:
            port = gateway.host.listenUDP(gateway.source, DatagramProtocol())
            port.write(answer, addr)
            port.stopListening()
        elif self.transport is not None:
            self.transport.write(answer, addr)


class UPnPGateway(Gateway):
    """
    A UPnP Internet gateway of version 1 or 2.

    @ivar version: which.
    @ivar permanentOnly: whether it refuses mappings that end by themselves.
    @ivar refusal: the number of the fault that every mapping ends in, or 0.
    @ivar taken: external ports that somebody else has.
    @ivar document: what the description is instead of a description.
    @ivar nonsense: what actions are answered with instead of an answer.
    @ivar hangs: whether its web server takes requests and answers none.
    @ivar location: the URL that searches are answered with.
    @ivar actions: the actions that were asked for.
    """

    def __init__(self, network: Network, *, version: int = 1) -> None:
        super().__init__(network)
        self.version = version
        self.permanentOnly = False
        self.refusal = 0
        self.taken: set[int] = set()
        self.document: bytes | None = None
        self.nonsense: bytes | None = None
        self.hangs = False
        self.location = f"http://{network.gateway}:{DESCRIPTION_PORT}/gateway.xml"
        self.actions: list[str] = []
        self._mapped: dict[int, tuple[str, int]] = {}

    @property
    def service(self) -> str:
        """The service that maps ports."""
        return upnp.WAN_IP_2 if self.version == 2 else upnp.WAN_IP_1

    def listen(self) -> list[IListeningPort]:
        """Open the port of searches, and that of descriptions and actions."""
        return [
            self.host.listenUDP(ssdp.PORT, _Searches(self)),
            self.host.listenTCP(DESCRIPTION_PORT, _WebFactory(self)),
        ]

    def reboot(self) -> None:
        """Forget all mappings."""
        super().reboot()
        self._mapped.clear()

    def describe(self) -> bytes:
        """The description of the device."""
        if self.document is not None:
            return self.document
        services = (upnp.Service(self.service, "/control"),)
        description = upnp.Description("A simulated router", "", services)
        return upnp.buildDescription(description, self.version)

    def act(self, document: bytes, owner: str) -> bytes | upnp.Fault:
        """Do what is asked for."""
        if self.nonsense is not None:
            return self.nonsense
        try:
            action, arguments = upnp.parseAction(document)
        except WireError:
            return upnp.Fault(upnp.INVALID_ACTION, "Invalid Action")
        self.actions.append(action)
        try:
            result = self._do(action, arguments, owner)
        except (KeyError, ValueError):
            return upnp.Fault(upnp.INVALID_ARGS, "Invalid Args")
        if isinstance(result, upnp.Fault):
            return result
        return upnp.buildResult(self.service, action, result)

    def _do(
        self, action: str, arguments: dict[str, str], owner: str
    ) -> dict[str, str] | upnp.Fault:
        if action == "GetExternalIPAddress":
            return {"NewExternalIPAddress": formatAddress(self.address())}
        if action == "DeletePortMapping":
            internal = self._mapped.pop(int(arguments["NewExternalPort"]), None)
            if internal is None:
                return upnp.Fault(714, "NoSuchEntryInArray")
            self.mapPort(*internal, 0, 0)
            return {}
        isAny = action == "AddAnyPortMapping"
        if not (isAny and self.version == 2) and action != "AddPortMapping":
            return upnp.Fault(upnp.INVALID_ACTION, "Invalid Action")
        if arguments["NewProtocol"] != "UDP" or arguments["NewInternalClient"] != owner:
            return upnp.Fault(upnp.NOT_AUTHORIZED, "Action not authorized")
        if self.refusal:
            return upnp.Fault(self.refusal, "No")
        lease = int(arguments["NewLeaseDuration"])
        if lease and self.permanentOnly:
            return upnp.Fault(upnp.ONLY_PERMANENT_LEASES, "OnlyPermanentLeases")
        wanted = int(arguments["NewExternalPort"])
        internalPort = int(arguments["NewInternalPort"])
        if wanted in self.taken:
            if not isAny:
                return upnp.Fault(upnp.CONFLICT, "ConflictInMappingEntry")
            wanted += 1
        port = self.mapPort(owner, internalPort, wanted, lease or math.inf)
        if port is None:
            return upnp.Fault(upnp.NO_PORT_MAPS, "NoPortMapsAvailable")
        if port != wanted and not isAny:
            self.mapPort(owner, internalPort, 0, 0)
            return upnp.Fault(upnp.CONFLICT, "ConflictInMappingEntry")
        self._mapped[port] = owner, internalPort
        return {"NewReservedPort": str(port)} if isAny else {}


class _Searches(DatagramProtocol):
    """Answers searches for a L{UPnPGateway}."""

    def __init__(self, gateway: UPnPGateway) -> None:
        self._gateway = gateway

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """See L{DatagramProtocol}."""
        try:
            search = ssdp.parseSearch(datagram)
        except WireError:
            return
        if search.target not in (ssdp.ALL, ssdp.GATEWAY):
            return
        found = ssdp.Found(
            ssdp.GATEWAY, self._gateway.location, "uuid:simulated", "simulated/1"
        )
        self._gateway.later(self._answer, ssdp.buildFound(found), addr)

    def _answer(self, answer: bytes, addr: tuple[str, int]) -> None:
        if self.transport is not None:
            self.transport.write(answer, addr)


class _WebFactory(ServerFactory):
    """Makes a L{_Web} for each connection."""

    noisy = False

    def __init__(self, gateway: UPnPGateway) -> None:
        self._gateway = gateway

    def buildProtocol(self, addr: object) -> _Web:
        """See L{IProtocolFactory}."""
        return _Web(self._gateway)


class _Web(Protocol):
    """The small web server of a L{UPnPGateway}: one request a connection."""

    def __init__(self, gateway: UPnPGateway) -> None:
        self._gateway = gateway
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) < length:
            return
        self._gateway.later(self._serve, head.split(b" ")[0], body)

    def _serve(self, method: bytes, body: bytes) -> None:
        if self.transport is None or self._gateway.hangs:
            return
        status = b"200 OK"
        if method == b"GET":
            content = self._gateway.describe()
        else:
            peer = self.transport.getPeer()
            assert isinstance(peer, IPv4Address)
            result = self._gateway.act(body, peer.host)
            if isinstance(result, upnp.Fault):
                status, content = b"500 Internal Server Error", upnp.buildFault(result)
            else:
                content = result
        self.transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (status, len(content), content)
        )
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}: there is nobody to answer any more."""
        self.transport = None


def startGateways(network: Network, services: Collection[str]) -> list[Gateway]:
    """
    Let the router of a network map ports.

    @param services: some of C{"NAT-PMP"}, C{"PCP"} and C{"UPnP"}.
    """
    gateways: list[Gateway] = []
    pmp, pcp = "NAT-PMP" in services, "PCP" in services
    if pmp or pcp:
        gateways.append(PortControlGateway(network, pmp=pmp, pcp=pcp))
    if "UPnP" in services:
        gateways.append(UPnPGateway(network))
    for gateway in gateways:
        gateway.startService()
    return gateways
