"""
The packet filter: closed until control sends rules.

Inbound packets must come from an address that belongs to the peer whose
session carried them, go to an address of this node, and be let in by a rule
or be part of a flow that this node began.  Outbound packets pass, and open the
way for their answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from tsrt.addresses import Prefix
from tsrt.counters import Counters
from tsrt.dataplane.runs import Arrived, ArrivedRun, Outgoing, SegmentRun
from tsrt.netmap.inspection import (
    flowKey,
    isAnswer,
    isLinkLocal,
    isMulticast,
    parseForFilter,
)
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import RuleSet
from tsrt.tailcfg import Raw

ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
TSMP = 99
SCTP = 132

MOST_FLOWS = 512
"""Flows begun here whose answers pass (the least recently used go first)."""

MOST_REMEMBERED = 65536
"""Flows of which is remembered how they were decided."""

# What is remembered of a flow whose source, destination and rules were checked.
_PASSES = 1  # a rule lets in all of it
_PASSES_BUT_SYN = 2  # no rule does: only what is of no use without a SYN
_PASSES_AS_ANSWER = 3  # it passes as long as this node is known to have begun it
_PASSES_DATA = (_PASSES, _PASSES_BUT_SYN)


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
        self._jailedFlows = FlowMemory(self.counters)
        # Of each peer: what is remembered of its flows, by their addresses,
        # ports and protocol as they stand in its packets.
        self._cache: dict[bytes, dict[bytes, int]] = {}
        self._cached = 0
        # Destinations of packets that went out: no multicast or the like.
        self._passable: set[bytes] = set()
        # UDP and SCTP flows that peers began, as the rules in force let them.
        self._begunByPeers: set[bytes] = set()

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
        """Let these peers, by their raw keys, only answer, never begin."""
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
        self._begunByPeers = set()

    @property
    def errors(self) -> list[str]:
        """What of the rules could not be used."""
        return self._rules.errors

    def capabilities(self, source: bytes, destination: bytes) -> dict[str, list[Raw]]:
        """What the node at C{source} may do at C{destination}."""
        if self._shieldsUp:
            return {}
        return self._rules.capabilities(source, destination)

    def mayBegin(
        self, protocol: int, source: bytes, destination: bytes, port: int
    ) -> bool:
        """
        Whether the rules in force let somebody begin a flow, which may be one that
        was begun when there were others.

        @param protocol: one with ports.
        @param source: packed address of who begins; C{destination} of whom with.
        """
        if self._shieldsUp:
            return False
        if self._jailed and self._sources.lookup(source) in self._jailed:
            return False
        return self._rules.allowsPort(
            protocol, source, destination, port, self._attributes
        )

    # -- inbound -----------------------------------------------------------------

    def admit(self, packets: Sequence[Arrived], peer: bytes) -> list[Arrived]:
        """
        Let in what may come in.

        @param packets: whole IP packets and runs of them, as a session of
            C{peer} carried them; empty ones are no packets and just vanish.
        @param peer: the raw node key of the peer.
        @return: those that may go to the stack, in their order.
        """
        cache = self._cache.get(peer)
        if cache is None:
            cache = self._cache[peer] = {}
        admitted: list[Arrived] = []
        more = 0
        for packet in packets:
            if isinstance(packet, ArrivedRun):
                # Segments with data and ACK, and no SYN.
                head = packet.head
                key = (
                    head[6:10] + head[12:24]
                    if head[0] == 0x45
                    else head[6:7] + head[8:44]
                )
                remembered = cache.get(key)
                if remembered in _PASSES_DATA:
                    admitted.append(packet)
                    more += packet.count - 1
                else:
                    admitted += [
                        each
                        for each in packet.packets()
                        if self._decide(each, peer, cache)
                    ]
                continue
            # What is remembered of a flow is found by slices at fixed places,
            # for packets of the plainest form: no options, nothing behind the
            # end.  What is known of no flow takes the long way.
            size = len(packet)
            remembered = None
            if size >= 40 and packet[0] == 0x45:
                if packet[2] << 8 | packet[3] == size:
                    remembered = cache.get(packet[6:10] + packet[12:24])
                flags = 33
            elif size >= 60 and packet[0] >> 4 == 6:
                if packet[4] << 8 | packet[5] == size - 40:
                    remembered = cache.get(packet[6:7] + packet[8:44])
                flags = 53
            if remembered is not None:
                if remembered == _PASSES:
                    admitted.append(packet)
                    continue
                if remembered == _PASSES_BUT_SYN:
                    if packet[flags] & 0x12 != 0x02:
                        admitted.append(packet)
                        continue
                elif self._flowsOf(peer).knows(flowKey(packet)):
                    admitted.append(packet)
                    continue
            if self._decide(packet, peer, cache):
                admitted.append(packet)
        self.counters.admitted += len(admitted) + more
        return admitted

    def _decide(self, packet: bytes, peer: bytes, cache: dict[bytes, int]) -> bool:
        """The whole decision about one packet."""
        counters = self.counters
        parsed = parseForFilter(packet)
        if parsed is None:
            if packet:
                counters.droppedMalformed += 1
            return False
        protocol, source, destination, offset, isLaterFragment = parsed
        if self._sources.lookup(source) != peer:
            counters.droppedSource += 1
            return False
        if isMulticast(destination):
            counters.droppedMulticast += 1
            return False
        if isLinkLocal(destination):
            counters.droppedLinkLocal += 1
            return False
        if isLaterFragment:
            return True
        if destination not in self._local:
            counters.droppedNotLocal += 1
            return False
        if protocol == TSMP:
            return True
        isShielded = self._shieldsUp or peer in self._jailed
        rules = _NO_RULES if isShielded else self._rules
        if protocol == TCP:
            port = int.from_bytes(packet[offset + 2 : offset + 4], "big")
            passes = rules.allowsPort(
                protocol, source, destination, port, self._attributes
            )
            if passes:
                self._remember(cache, packet, offset, _PASSES)
            elif packet[offset + 13] & 0x12 != 0x02:
                # Everything but the first segment of a connection passes: it
                # is of no use without the first.
                passes = True
                self._remember(cache, packet, offset, _PASSES_BUT_SYN)
        elif protocol in (UDP, SCTP):
            port = int.from_bytes(packet[offset + 2 : offset + 4], "big")
            ports = packet[offset : offset + 4]
            key = bytes((protocol,)) + source + destination + ports
            passes = self._flowsOf(peer).knows(key)
            if passes:
                self._remember(cache, packet, offset, _PASSES_AS_ANSWER)
            else:
                passes = rules.allowsPort(
                    protocol, source, destination, port, self._attributes
                )
                if passes:
                    # Whether it is an answer, too, is then of no interest.
                    self._remember(cache, packet, offset, _PASSES)
                    if len(self._begunByPeers) < MOST_REMEMBERED:
                        self._begunByPeers.add(key)
        elif protocol == (ICMP if len(source) == 4 else ICMPV6):
            passes = isAnswer(
                protocol, packet[offset], packet[offset + 1]
            ) or rules.allowsHost(source, destination, self._attributes)
        else:
            passes = rules.allowsProtocol(protocol, source, destination)
        if not passes:
            counters.droppedRule += 1
        return passes

    def _flowsOf(self, peer: bytes) -> FlowMemory:
        """Where flows to C{peer} that this node began are remembered."""
        return self._jailedFlows if peer in self._jailed else self._flows

    def _remember(
        self, cache: dict[bytes, int], packet: bytes, offset: int, what: int
    ) -> None:
        """Remember a flow, where its packets can be told at fixed places."""
        if packet[0] == 0x45:
            # Followers of a first fragment have no ports.
            if packet[6] & 0x3F or packet[7]:
                return
            # That it is no fragment is part of the key, together with the time
            # to live, which does not vary within a flow.
            key = packet[6:10] + packet[12:24]
        elif offset == 40:
            key = packet[6:7] + packet[8:44]
        else:
            return
        if self._cached >= MOST_REMEMBERED:
            self._forget()
            return
        if key not in cache:
            self._cached += 1
        cache[key] = what

    # -- outbound ------------------------------------------------------------------

    def noteOutbound(self, packets: Sequence[Outgoing]) -> list[Outgoing]:
        """
        Let out what may go out, and remember which answers may come in.

        @return: the packets that may go to the tunnel, in their order.
        """
        passed: list[Outgoing] = []
        passable = self._passable
        for packet in packets:
            if isinstance(packet, SegmentRun):
                if packet.destination in passable or self._maySend(packet.packets()[0]):
                    passed.append(packet)
                else:
                    self.counters.droppedOutbound += packet.count
                continue
            # A plain TCP segment leaves nothing to remember.
            size = len(packet)
            if size >= 60 and packet[0] >> 4 == 6 and packet[6] == TCP:
                if (packet[4] << 8 | packet[5]) == size - 40 and packet[
                    24:40
                ] in passable:
                    passed.append(packet)
                    continue
            elif (
                size >= 40
                and packet[0] == 0x45
                and packet[9] == TCP
                and (packet[2] << 8 | packet[3]) == size
                and not packet[6] & 0x3F
                and not packet[7]
                and packet[16:20] in passable
            ):
                passed.append(packet)
                continue
            if self._maySend(packet):
                passed.append(packet)
            else:
                self.counters.droppedOutbound += 1
        return passed

    def _maySend(self, packet: bytes) -> bool:
        """Whether a packet may go out; notes which answers it expects."""
        parsed = parseForFilter(packet)
        if parsed is None:
            return False
        protocol, source, destination, offset, isLaterFragment = parsed
        if isMulticast(destination) or isLinkLocal(destination):
            return False
        if len(self._passable) >= MOST_REMEMBERED:
            self._passable.clear()
        self._passable.add(destination)
        if protocol in (UDP, SCTP) and not isLaterFragment:
            answer = (
                bytes((protocol,))
                + destination
                + source
                + packet[offset + 2 : offset + 4]
                + packet[offset : offset + 2]
            )
            # What answers a peer begins nothing: when the rule goes that let the
            # peer in, its flow ends.
            if answer not in self._begunByPeers:
                flows = self._flows
                if self._jailed:
                    peer = self._sources.lookup(destination)
                    flows = flows if peer is None else self._flowsOf(peer)
                flows.note(answer)
        return True


_NO_RULES = RuleSet()
