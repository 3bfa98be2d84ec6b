"""
The packet filter: closed until control sends rules.

Inbound packets must come from an address that belongs to the peer whose
session carried them, go to an address of this node, and be let in by a rule
or be part of a flow that this node began.  Outbound packets pass, and open the
way for their answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

from tsrt.addresses import Prefix
from tsrt.counters import Counters
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import RuleSet
from tsrt.tailcfg import Raw

ICMP = 1
TCP = 6
UDP = 17
FRAGMENT_HEADER = 44
ICMPV6 = 58
TSMP = 99
SCTP = 132

MOST_FLOWS = 512
"""Flows begun here whose answers pass (the least recently used go first)."""

_MOST_CACHED = 65536

_ERRORS_V4 = frozenset((3, 11, 12))
_ERRORS_V6 = frozenset((1, 2, 3, 4))

# Bytes that a packet must have behind its IP header.
_LEAST = {ICMP: 4, ICMPV6: 4, TCP: 20, UDP: 8, SCTP: 12, TSMP: 7}

# A later fragment that could overwrite the ports of its first one is no good.
_LEAST_FRAGMENT_OFFSET = 80

_METADATA_SERVICE = bytes((169, 254, 169, 254))


class FilterCounters(Counters):
    """Packets that passed, and why others did not."""

    __slots__ = (
        "admitted",
        "droppedLinkLocal",
        "droppedMalformed",
        "droppedMulticast",
        "droppedNotLocal",
        "droppedOutbound",
        "droppedRule",
        "droppedSource",
        "flowsForgotten",
    )
    admitted: int
    droppedLinkLocal: int
    droppedMalformed: int
    droppedMulticast: int
    droppedNotLocal: int
    droppedOutbound: int
    droppedRule: int
    droppedSource: int
    flowsForgotten: int


class FlowMemory:
    """UDP and SCTP flows that this node began, so that answers pass."""

    __slots__ = ("_counters", "_flows")

    def __init__(self, counters: FilterCounters) -> None:
        self._flows: OrderedDict[bytes, None] = OrderedDict()
        self._counters = counters

    def note(self, answer: bytes) -> None:
        """Remember the flow whose answers look like C{answer}."""
        flows = self._flows
        if answer in flows:
            flows.move_to_end(answer)
            return
        flows[answer] = None
        if len(flows) > MOST_FLOWS:
            flows.popitem(last=False)
            self._counters.flowsForgotten += 1

    def knows(self, flow: bytes) -> bool:
        """Whether a packet belongs to a flow begun here."""
        if flow in self._flows:
            self._flows.move_to_end(flow)
            return True
        return False

    def __len__(self) -> int:
        return len(self._flows)


def _nobody(address: bytes) -> Collection[str]:
    """No node has any attribute."""
    return ()


class PacketFilter:
    """
    Decides over whole lists of packets.

    What was decided for a flow is remembered by its packed addresses and
    ports; every change of rules, sources or addresses forgets all of it.
    """

    def __init__(
        self, attributes: Callable[[bytes], Collection[str]] = _nobody
    ) -> None:
        """
        @param attributes: the node attributes of the peer with an address,
            for rules about holders of an attribute.
        """
        self._attributes = attributes
        self._rules = RuleSet()
        self._sources: RouteTable[bytes] = RouteTable()
        self._local: RouteTable[bool] = RouteTable()
        self._jailed: frozenset[bytes] = frozenset()
        self._shieldsUp = False
        self.counters = FilterCounters()
        self._flows = FlowMemory(self.counters)
        self._shieldedFlows = FlowMemory(self.counters)
        # Of each peer: flows that pass, and whether even their SYNs do.
        self._cache: dict[bytes, dict[bytes, bool]] = {}
        self._cached = 0

    # -- what is in force -------------------------------------------------------

    def setRules(self, rules: RuleSet) -> None:
        """Let in what C{rules} say, from now on."""
        self._rules = rules
        self._forget()

    def setSources(self, sources: RouteTable[bytes]) -> None:
        """
        Take packets only from whom they may come.

        @param sources: from source prefixes to the raw key of the one peer
            that may send from there.
        """
        self._sources = sources
        self._forget()

    def setLocal(self, prefixes: Iterable[Prefix]) -> None:
        """Take packets only to these destinations."""
        self._local = RouteTable((prefix, True) for prefix in prefixes)
        self._forget()

    def setJailed(self, peers: Iterable[bytes]) -> None:
        """Let these peers, by their raw keys, answer only, never begin."""
        self._jailed = frozenset(peers)
        self._forget()

    def setShieldsUp(self, shieldsUp: bool) -> None:
        """Let nobody begin anything; flows of before are forgotten."""
        if shieldsUp and not self._shieldsUp:
            self._flows = FlowMemory(self.counters)
        self._shieldsUp = shieldsUp
        self._forget()

    def _forget(self) -> None:
        self._cache = {}
        self._cached = 0

    @property
    def errors(self) -> list[str]:
        """What of the rules could not be used."""
        return self._rules.errors

    def capabilities(self, source: bytes, destination: bytes) -> dict[str, list[Raw]]:
        """What the node at C{source} may do at C{destination}."""
        if self._shieldsUp:
            return {}
        return self._rules.capabilities(source, destination)

    # -- inbound -----------------------------------------------------------------

    def admit(self, packets: list[bytes], peer: bytes) -> list[bytes]:
        """
        Let in what may come in.

        @param packets: whole IP packets, as a session of C{peer} carried them.
        @param peer: the raw node key of the peer.
        @return: those that may go to the stack, in their order.
        """
        cache = self._cache.get(peer)
        if cache is None:
            cache = self._cache[peer] = {}
        admitted = []
        for packet in packets:
            if len(packet) >= 40 and packet[0] == 0x45 and packet[9] in (TCP, UDP):
                passes = (
                    cache.get(packet[9:10] + packet[12:24])
                    if not packet[6] & 0x3F and not packet[7]
                    else None
                )
                flags = 33
            elif len(packet) >= 60 and packet[0] >> 4 == 6 and packet[6] in (TCP, UDP):
                passes = cache.get(packet[6:7] + packet[8:44])
                flags = 53
            else:
                passes, flags = None, 0
            # A remembered flow may be one whose SYNs do not pass.
            if (
                passes
                or (passes is False and packet[flags] & 0x12 != 0x02)
                or self._decide(packet, peer, cache)
            ):
                admitted.append(packet)
        self.counters.admitted += len(admitted)
        return admitted

    def _decide(self, packet: bytes, peer: bytes, cache: dict[bytes, bool]) -> bool:
        """The whole decision about one packet."""
        counters = self.counters
        parsed = _parse(packet)
        if parsed is None:
            counters.droppedMalformed += 1
            return False
        protocol, source, destination, offset, isLaterFragment = parsed
        if self._sources.lookup(source) != peer:
            counters.droppedSource += 1
            return False
        if not self._isUnicast(destination):
            return False
        if isLaterFragment:
            return True
        if destination not in self._local:
            counters.droppedNotLocal += 1
            return False
        shielded = self._shieldsUp or peer in self._jailed
        rules = _NO_RULES if shielded else self._rules
        flows = self._shieldedFlows if peer in self._jailed else self._flows
        if protocol == TSMP:
            return True
        if protocol in (ICMP, ICMPV6):
            kind, code = packet[offset], packet[offset + 1]
            if protocol == ICMP:
                passes = (kind == 0 and code == 0) or kind in _ERRORS_V4
            else:
                passes = (kind == 129 and code == 0) or kind in _ERRORS_V6
            passes = passes or self._anyRule(rules, source, destination)
        elif protocol == TCP:
            port = int.from_bytes(packet[offset + 2 : offset + 4], "big")
            allowed = rules.isAllowed(
                protocol, source, destination, port, self._attributes
            )
            # Everything but the first segment of a connection passes: it is
            # of no use without the first.
            passes = allowed or packet[offset + 13] & 0x12 != 0x02
            if passes:
                self._remember(cache, packet, offset, allowed)
        elif protocol in (UDP, SCTP):
            port = int.from_bytes(packet[offset + 2 : offset + 4], "big")
            ports = packet[offset : offset + 4]
            passes = flows.knows(bytes((protocol,)) + source + destination + ports)
            if not passes:
                passes = rules.isAllowed(
                    protocol, source, destination, port, self._attributes
                )
                if passes and protocol == UDP:
                    self._remember(cache, packet, offset, True)
        else:
            passes = any(
                protocol in match.protocols
                and source in match.sources
                and match.allowsEveryPort(destination)
                for match in rules.matches
            )
        if not passes:
            counters.droppedRule += 1
        return passes

    def _anyRule(self, rules: RuleSet, source: bytes, destination: bytes) -> bool:
        """Whether a rule of any kind lets the source reach the destination."""
        held: Collection[str] | None = None
        for match in rules.matches:
            if source in match.sources:
                if match.allowsAddress(destination):
                    return True
            elif match.sourceCaps:
                held = self._attributes(source) if held is None else held
                if not match.sourceCaps.isdisjoint(held) and match.allowsAddress(
                    destination
                ):
                    return True
        return False

    def _remember(
        self, cache: dict[bytes, bool], packet: bytes, offset: int, whole: bool
    ) -> None:
        """Remember a flow, where its packets can be told at fixed places."""
        if self._cached >= _MOST_CACHED:
            self._forget()
            return
        if offset == 20 and packet[0] == 0x45:
            # A first fragment has its ports, but its followers have not.
            if packet[6] & 0x3F or packet[7]:
                return
            key = packet[9:10] + packet[12:24]
        elif offset == 40 and packet[0] >> 4 == 6:
            key = packet[6:7] + packet[8:44]
        else:
            return
        if key not in cache:
            self._cached += 1
        cache[key] = whole

    def _isUnicast(self, destination: bytes) -> bool:
        """Whether a destination is one that a tailnet carries packets to."""
        if len(destination) == 4:
            if destination[0] >= 224:
                self.counters.droppedMulticast += 1
                return False
            if destination[:2] == b"\xa9\xfe" and destination != _METADATA_SERVICE:
                self.counters.droppedLinkLocal += 1
                return False
        else:
            if destination[0] == 0xFF:
                self.counters.droppedMulticast += 1
                return False
            if destination[0] == 0xFE and destination[1] & 0xC0 == 0x80:
                self.counters.droppedLinkLocal += 1
                return False
        return True

    # -- outbound ------------------------------------------------------------------

    def noteOutbound(self, packets: list[bytes]) -> list[bytes]:
        """
        Let out what may go out, and remember which answers may come in.

        @return: the packets that may go to the tunnel, in their order.
        """
        passed = []
        note = self._flows.note
        jailed = self._jailed
        for packet in packets:
            if len(packet) < 20:
                self.counters.droppedOutbound += 1
                continue
            if packet[0] >> 4 == 4:
                protocol, destination = packet[9], packet[16:20]
                source = packet[12:16]
                offset = (packet[0] & 0x0F) * 4
                isFirst = not packet[6] & 0x1F and not packet[7]
            else:
                protocol, destination = packet[6], packet[24:40]
                source = packet[8:24]
                offset, isFirst = 40, True
                if protocol == FRAGMENT_HEADER and len(packet) >= 48:
                    protocol, offset = packet[40], 48
                    isFirst = not packet[42] and not packet[43] & 0xF8
            if not self._isUnicast(destination):
                self.counters.droppedOutbound += 1
                continue
            passed.append(packet)
            if protocol in (UDP, SCTP) and isFirst and len(packet) >= offset + 4:
                answer = (
                    bytes((protocol,))
                    + destination
                    + source
                    + packet[offset + 2 : offset + 4]
                    + packet[offset : offset + 2]
                )
                if jailed and self._sources.lookup(destination) in jailed:
                    self._shieldedFlows.note(answer)
                else:
                    note(answer)
        return passed


_NO_RULES = RuleSet()


def _parse(packet: bytes) -> tuple[int, bytes, bytes, int, bool] | None:
    """
    What the decision needs of a packet.

    @return: protocol, source, destination, where the protocol's header begins,
        and whether this is a fragment without that header; or C{None} for a
        packet that is malformed, or looks like an attempt to hide something.
    """
    size = len(packet)
    if size < 20:
        return None
    if packet[0] >> 4 == 4:
        return _parseV4(packet, size)
    if packet[0] >> 4 == 6 and size >= 40:
        return _parseV6(packet, size)
    return None


def _parseV4(packet: bytes, size: int) -> tuple[int, bytes, bytes, int, bool] | None:
    offset = (packet[0] & 0x0F) * 4
    total = int.from_bytes(packet[2:4], "big")
    if offset < 20 or total < offset or total > size:
        return None
    protocol = packet[9]
    fragment = int.from_bytes(packet[6:8], "big")
    source, destination = packet[12:16], packet[16:20]
    if fragment & 0x1FFF:
        if (fragment & 0x1FFF) * 8 < _LEAST_FRAGMENT_OFFSET:
            return None
        return protocol, source, destination, offset, True
    if protocol == TSMP and fragment & 0x2000:
        return None
    if protocol == 255 or total - offset < _LEAST.get(protocol, 0):
        return None
    return protocol, source, destination, offset, False


def _parseV6(packet: bytes, size: int) -> tuple[int, bytes, bytes, int, bool] | None:
    total = 40 + int.from_bytes(packet[4:6], "big")
    if total > size:
        return None
    protocol, offset = packet[6], 40
    source, destination = packet[8:24], packet[24:40]
    if protocol == FRAGMENT_HEADER:
        if total < 48:
            return None
        protocol, offset = packet[40], 48
        fragment = int.from_bytes(packet[42:44], "big") & 0xFFF8
        if fragment:
            if fragment < _LEAST_FRAGMENT_OFFSET:
                return None
            return protocol, source, destination, offset, True
    if protocol == 255 or total - offset < _LEAST.get(protocol, 0):
        return None
    return protocol, source, destination, offset, False
