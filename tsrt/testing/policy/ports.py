"""Ports and protocols as a policy writes them."""

from __future__ import annotations

from attrs import frozen

from tsrt.errors import WireError

_PROTOCOLS: dict[str, tuple[int, ...]] = {
    "icmp": (1, 58),
    "ipv6-icmp": (58,),
    "igmp": (2,),
    "ipv4": (4,),
    "ip-in-ip": (4,),
    "tcp": (6,),
    "egp": (8,),
    "igp": (9,),
    "udp": (17,),
    "gre": (47,),
    "esp": (50,),
    "ah": (51,),
    "sctp": (132,),
    "fc": (133,),
}

_WITH_PORTS = frozenset((6, 17, 132))


@frozen
class PortRange:
    """
    A range of ports, both ends included.

    @ivar first: the lowest port.
    @ivar last: the highest port.
    """

    first: int
    last: int

    @property
    def isAll(self) -> bool:
        """Whether the range holds every port."""
        return self.first == 0 and self.last == 65535

    def contains(self, port: int) -> bool:
        """Whether C{port} is in the range."""
        return self.first <= port <= self.last


ALL_PORTS = PortRange(0, 65535)
"""Every port."""


def parsePorts(text: str) -> tuple[PortRange, ...]:
    """
    Parse a list of ports: C{*}, C{22}, C{80,443} or C{8000-8999}.

    @raise WireError: when it is none of these.
    """
    if text == "*":
        return (ALL_PORTS,)
    return tuple(_parseRange(part.strip()) for part in text.split(","))


def _parseRange(text: str) -> PortRange:
    first, dash, last = text.partition("-")
    low = _parsePort(first, text)
    high = _parsePort(last, text) if dash else low
    if high < low:
        raise WireError(f"the port range {text!r} ends before it starts")
    return PortRange(low, high)


def _parsePort(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise WireError(f"{whole!r} is no port, port range or *")
    port = int(text)
    if port > 65535:
        raise WireError(f"the port {port} is above 65535")
    return port


def parseProtocol(text: str) -> tuple[int, ...]:
    """
    Parse a protocol name or number into IP protocol numbers.

    @return: no numbers for an empty name or C{*}, which stand for the
        protocols that a rule without any names (TCP, UDP and ICMP).
    @raise WireError: when the name is unknown or the number out of range.
    """
    if text in ("", "*"):
        return ()
    known = _PROTOCOLS.get(text.lower())
    if known is not None:
        return known
    if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255:
        return (int(text),)
    raise WireError(f"{text!r} is no known protocol")


def checkPortsAllowed(protocols: tuple[int, ...], ports: tuple[PortRange, ...]) -> None:
    """
    Refuse ports for protocols that have none.

    @raise WireError: when there are ports but the protocol cannot have them.
    """
    portless = bool(protocols) and not _WITH_PORTS.issuperset(protocols)
    if portless and any(not part.isAll for part in ports):
        raise WireError("this protocol has no ports; only * is possible")


def parseIPEntry(text: str) -> tuple[tuple[int, ...], tuple[PortRange, ...]]:
    """
    Parse an entry of a grant's C{ip}: C{*}, C{443}, C{tcp:80-90}, C{icmp:*}.

    @return: the protocol numbers and the ports.
    @raise WireError: when it is none of these.
    """
    protocol, colon, ports = text.rpartition(":")
    protocols = parseProtocol(protocol) if colon else ()
    parsed = parsePorts(ports)
    checkPortsAllowed(protocols, parsed)
    return protocols, parsed


def splitDestination(text: str) -> tuple[str, tuple[PortRange, ...]]:
    """
    Split an ACL destination into a selector and ports.

    @return: the selector's text, without brackets around an IPv6 address, and
        the ports.
    @raise WireError: when there are no ports.
    """
    selector, colon, ports = text.rpartition(":")
    if not colon or not selector:
        raise WireError(f"{text!r} needs ports after a colon, like 'tag:web:443'")
    if selector.startswith("[") and selector.endswith("]"):
        selector = selector[1:-1]
    return selector, parsePorts(ports)
