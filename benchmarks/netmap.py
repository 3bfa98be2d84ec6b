"""
What a big netmap costs, alone and in a whole node, and what the packet filter
costs a packet.

Absolute figures differ from machine to machine and from minute to minute; the
ratios within one run are what to compare.  The collector is off while a step
is measured, as it is in practice once the first map is frozen.
"""

from __future__ import annotations

import argparse
import gc
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from benchmarks.results import conclude, readOptions
from tsrt.addresses import AddrPort, Prefix
from tsrt.netmap.delta import MapState
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.names import NameTable
from tsrt.netmap.routes import RouteTable, buildRoutes
from tsrt.netmap.rules import compileRules
from tsrt.tailcfg import (
    FilterRule,
    Hostinfo,
    MapResponse,
    NetPortRange,
    PeerChange,
    PortRange,
    Service,
    UserProfile,
    WireNode,
    decodeMapResponse,
    encode,
)
from tsrt.testing.tailnet import TestTailnet
from tsrt.wire.ip import buildIP
from tsrt.wire.udp import buildUDP

PEER = b"p" * 32
BATCH = 48
SIZE = 1240


def wireNode(number: int, generation: int = 0) -> WireNode:
    """A node as a server describes it."""
    raw = (number + (generation << 24)).to_bytes(4, "big") * 8
    address = (100 << 24 | 64 << 16) + number
    v4 = ".".join(str(byte) for byte in address.to_bytes(4, "big")) + "/32"
    v6 = f"fd7a:115c:a1e0::{number >> 16:x}:{number & 0xFFFF:x}/128"
    return WireNode(
        id=number,
        stableID=f"n{number}CNTRL",
        name=f"host-{number}.tail1234.ts.net.",
        user=1 + number % 50,
        key=f"nodekey:{raw.hex()}",
        machine=f"mkey:{raw[::-1].hex()}",
        discoKey=f"discokey:{raw.hex()}",
        addresses=[v4, v6],
        allowedIPs=[v4, v6],
        endpoints=["192.0.2.8:41641", "198.51.100.7:41641", "[2001:db8::7]:41641"],
        homeDERP=1 + number % 20,
        derp=f"127.3.3.40:{1 + number % 20}",
        hostinfo=Hostinfo(
            hostname=f"host-{number}",
            os="linux",
            services=[Service(proto="peerapi4", port=40000)],
        ),
        cap=130,
        online=True,
        machineAuthorized=True,
    )


def fullMap(count: int) -> bytes:
    """The first response of a poll with C{count} peers, as JSON."""
    return encode(
        MapResponse(
            node=wireNode(1),
            peers=[wireNode(number) for number in range(2, count + 2)],
            userProfiles=[UserProfile(id=n, loginName=f"u{n}") for n in range(1, 51)],
            packetFilters={
                "base": [
                    FilterRule(
                        srcIPs=["*"],
                        dstPorts=[NetPortRange(ip="*", ports=PortRange(0, 65535))],
                    )
                ]
            },
        )
    )


def timed(work: Callable[[], object]) -> float:
    """The milliseconds that C{work} takes, without the collector."""
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e3
    finally:
        gc.enable()


def measureMap(count: int, changed: int, rounds: int) -> list[tuple[str, float]]:
    """The best of several rounds for each step in the life of a netmap."""
    data = fullMap(count)
    ids = range(2, changed + 2)
    best: dict[str, float] = {}

    def note(label: str, work: Callable[[], object]) -> None:
        best[label] = min(best.get(label, float("inf")), timed(work))

    def applied(state: MapState, response: MapResponse) -> Callable[[], object]:
        return lambda: state.apply(response, 0.0)

    for number in range(rounds):
        first = decodeMapResponse(data)
        note(f"decode a map of {count:,} peers", lambda: decodeMapResponse(data))
        state = MapState()
        note("apply it to nothing", applied(state, first))
        state.newPoll()
        again = decodeMapResponse(data)
        note("apply the same again, with a new poll", applied(state, again))
        note(
            f"patch the region of {changed:,}",
            applied(
                state,
                MapResponse(
                    peersChangedPatch=[
                        PeerChange(nodeID=n, derpRegion=30 + number) for n in ids
                    ]
                ),
            ),
        )
        note(
            f"tell of {changed:,} who is online",
            applied(state, MapResponse(onlineChange=dict.fromkeys(ids, False))),
        )
        same = decodeMapResponse(
            encode(MapResponse(peersChanged=[wireNode(n) for n in ids]))
        )
        state.apply(same, 0.0)
        note(f"replace {changed:,} by the same", applied(state, same))
        note(
            f"replace {changed:,} by others with new keys",
            applied(
                state, MapResponse(peersChanged=[wireNode(n, 1 + number) for n in ids])
            ),
        )
        note("build the routes", partial(buildRoutes, state.map.peers))
        note("build the names", partial(NameTable, state.map))
        note(f"remove {changed:,}", applied(state, MapResponse(peersRemoved=list(ids))))
    return list(best.items())


# -- the filter -------------------------------------------------------------------


def packet4(port: int, protocol: int, flags: int = 0x10) -> bytes:
    """An IPv4 packet from the peer to this node."""
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        SIZE,
        0,
        0,
        64,
        protocol,
        0,
        bytes((100, 64, 0, 2)),
        bytes((100, 64, 0, 1)),
    )
    ports = struct.pack("!HHIIBB", 40000, port, 0, 0, 0x50, flags)
    return (header + ports).ljust(SIZE, b"\0")


def packet6(port: int) -> bytes:
    """An IPv6 packet from the peer to this node."""
    source, own = (Prefix.parse(f"fd7a:115c:a1e0::{n}").address for n in (2, 1))
    header = struct.pack("!IHBB16s16s", 6 << 28, SIZE - 40, 6, 64, source, own)
    ports = struct.pack("!HHIIBB", 40000, port, 0, 0, 0x50, 0x10)
    return (header + ports).ljust(SIZE, b"\0")


def makeFilter(rules: int) -> PacketFilter:
    """A filter with many rules, of which the last lets things in."""
    packetFilter = PacketFilter()
    sources: RouteTable[bytes] = RouteTable()
    for text in ("100.64.0.2", "fd7a:115c:a1e0::2"):
        sources.insert(Prefix.parse(text), PEER)
    packetFilter.setSources(sources)
    packetFilter.setLocal(map(Prefix.parse, ("100.64.0.1", "fd7a:115c:a1e0::1")))
    others = [
        FilterRule(
            srcIPs=[f"100.70.{n // 256}.{n % 256}"],
            dstPorts=[NetPortRange(ip="*", ports=PortRange(22, 22))],
        )
        for n in range(rules - 1)
    ]
    allowed = FilterRule(
        srcIPs=["*"], dstPorts=[NetPortRange(ip="*", ports=PortRange(80, 80))]
    )
    packetFilter.setRules(compileRules([*others, allowed]))
    return packetFilter


def measureFilter(rules: int, rounds: int) -> list[tuple[str, float]]:
    """The best of several rounds for a packet of each kind, in microseconds."""
    repeat = 50
    kept = makeFilter(rules)
    answered = makeFilter(rules)
    question = bytearray(packet4(9, 17))
    question[12:20] = question[16:20] + question[12:16]
    question[20:24] = question[22:24] + question[20:22]
    answered.noteOutbound([bytes(question)])
    outbound = bytearray(packet4(80, 6))
    outbound[12:20] = outbound[16:20] + outbound[12:16]

    def remembered(packet: bytes, which: PacketFilter) -> Callable[[], object]:
        batch = [packet] * BATCH
        assert which.admit(batch, PEER) == batch
        return lambda: [which.admit(batch, PEER) for _ in range(repeat)]

    def fresh(packet: bytes, passes: bool) -> Callable[[], object]:
        # A change of the rules forgets everything; one packet pays for that.
        active = kept._rules

        def work() -> None:
            for _ in range(repeat * BATCH):
                kept.setRules(active)
                assert bool(kept.admit([packet], PEER)) is passes

        return work

    def sent(packet: bytes) -> Callable[[], object]:
        batch = [packet] * BATCH
        assert kept.noteOutbound(batch) == batch
        return lambda: [kept.noteOutbound(batch) for _ in range(repeat)]

    steps: list[tuple[str, Callable[[], object]]] = [
        ("in: TCP over IPv4, flow remembered", remembered(packet4(80, 6), kept)),
        ("in: TCP over IPv6, flow remembered", remembered(packet6(80), kept)),
        ("in: UDP let in by a rule, remembered", remembered(packet4(80, 17), kept)),
        ("in: UDP answer to a flow of ours", remembered(packet4(9, 17), answered)),
        (f"in: first packet, {rules} rules, passes", fresh(packet4(80, 6, 2), True)),
        (f"in: first packet, {rules} rules, dropped", fresh(packet4(81, 6, 2), False)),
        ("out: TCP", sent(bytes(outbound))),
        ("out: UDP", sent(bytes(question))),
    ]
    best: dict[str, float] = {}
    for _ in range(rounds):
        for label, work in steps:
            cost = timed(work) * 1e3 / (repeat * BATCH)
            best[label] = min(best.get(label, float("inf")), cost)
    return list(best.items())


# -- a whole node -------------------------------------------------------------------


class BigNode:
    """
    A node in a tailnet of two, to which control then tells of many more peers.

    @ivar memory: bytes that each of those takes.
    @ivar first: milliseconds to apply the map with all of them, to everything that
        depends on it.
    """

    def __init__(self, count: int) -> None:
        """
        @param count: how many more.
        """
        self.tailnet = TestTailnet(nodes=["big", "peer"])
        self.engine = _engineOf(self.tailnet["big"])
        self.peer = _engineOf(self.tailnet["peer"])
        self.count = count
        self.tailnet.wait(self.tailnet["big"].ping("peer"))
        known = [node.wire for node in self.engine.netmap.peers]
        own = self.engine.netmap.selfNode.wire
        others = [wireNode(number) for number in range(1000, 1000 + count)]
        data = encode(MapResponse(node=own, peers=[*known, *others]))
        del others
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        self.engine.dispatcher.apply(decodeMapResponse(data))
        gc.collect()
        self.memory = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        again = MapResponse(node=own, peers=list(known))
        self.engine.dispatcher.apply(again)
        first = decodeMapResponse(data)
        self.first = timed(lambda: self.engine.dispatcher.apply(first))
        self._generation = 0
        self._prepareTraffic()

    def close(self) -> None:
        """Take the tailnet down."""
        self.tailnet.close()

    def delta(self, kind: str) -> float:
        """The milliseconds to apply a change of one peer."""
        self._generation += 1
        number = 1000 + self.count // 2
        if kind == "patch":
            change = PeerChange(nodeID=number, derpRegion=1 + self._generation % 20)
            response = MapResponse(peersChangedPatch=[change])
        elif kind == "online":
            isOnline = bool(self._generation % 2)
            response = MapResponse(onlineChange={number: isOnline})
        else:
            response = MapResponse(peersChanged=[wireNode(number, self._generation)])
        return timed(lambda: self.engine.dispatcher.apply(response))

    def _prepareTraffic(self) -> None:
        """A port that takes datagrams, and packets each way."""
        self.tailnet["big"].reactor.listenUDP(5000, DatagramProtocol())
        own, peer = (
            e.netmap.selfNode.packedAddresses()[0] for e in (self.engine, self.peer)
        )
        body = bytes(SIZE - 28)
        self._inward = buildIP(peer, own, 17, buildUDP(peer, 5000, own, 5000, body))
        self._outward = buildIP(own, peer, 17, buildUDP(own, 5000, peer, 5000, body))
        self.engine.datapath._transmit = lambda key, messages: True
        self._key = self.peer.netmap.peerByName("big").key.raw
        self._place = AddrPort.parse("192.0.2.1:41641")

    def inbound(self) -> float:
        """The microseconds of a packet from the tunnel to the application."""
        now = self.engine._overlay.now()
        sealed = self.peer.datapath._tunnel.send(self._key, [self._inward] * BATCH, now)
        receive = partial(self.engine.datapath.receive, b"source", sealed, self._place)
        return timed(receive) * 1e3 / BATCH

    def outbound(self) -> float:
        """The microseconds of a packet from the stack to the socket."""
        datapath = self.engine.datapath
        packets = [self._outward] * BATCH
        now = self.engine._overlay.now()
        send = partial(datapath._outbound, datapath._stack, packets, now)
        return timed(send) * 1e3 / BATCH


def _engineOf(node: Any) -> Any:
    """The parts of a node, past what it offers."""
    return node._engine


def measureNode(peers: int, rounds: int) -> dict[str, dict[str, float]]:
    """
    Print what a big tailnet costs a node, beside one of ten.

    @return: the figures of both.
    """
    nodes = {f"{count} peers": BigNode(count) for count in (peers, 10)}
    big, small = nodes.values()
    # Else each look of the collector at them takes longer than all that is measured.
    gc.freeze()
    found: dict[str, dict[str, float]] = {name: {} for name in nodes}
    print(f"a whole node with {peers:,} peers, beside one with 10")

    def note(label: str, values: list[float], comment: str = "") -> None:
        print(f"  {label:<44}{values[0]:>9.2f}{values[1]:>9.2f}{comment}")
        for name, value in zip(nodes, values, strict=True):
            found[name][label] = round(value, 3)

    note("apply the first map, ms", [big.first, small.first])
    for label, kind in (
        ("apply a patch of one peer, ms", "patch"),
        ("apply that one peer is online, ms", "online"),
        ("apply one peer with another key, ms", "changed"),
    ):
        note(label, [min(n.delta(kind) for _ in range(rounds)) for n in (big, small)])
    print(f"  {'memory of a peer, KB':<44}{big.memory / 1024:>9.1f}")
    for label, direction in (
        ("a packet to the application, us", "inbound"),
        ("a packet to the socket, us", "outbound"),
    ):
        costs: list[list[float]] = [[], []]
        # In turns, so that the machine's moods meet both.
        for _ in range(rounds * 20):
            for number, node in enumerate((big, small)):
                costs[number].append(getattr(node, direction)())
        middle = [sorted(each)[len(each) // 2] for each in costs]
        ratio = f"   ratio of medians {middle[0] / middle[1]:.2f}"
        note(label, [min(each) for each in costs], ratio)
    gc.unfreeze()
    for node in (big, small):
        node.close()
    return found


def main(arguments: list[str]) -> None:
    """Measure, and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = readOptions(parser, arguments)
    size = len(fullMap(options.peers)) / 1e6
    print(f"{options.peers:,} peers, {size:.1f} MB of JSON: milliseconds")
    steps = measureMap(options.peers, options.changed, options.rounds)
    for label, cost in steps:
        print(f"  {label:<44}{cost:>9.2f}")
    nodes = measureNode(options.peers, options.rounds)
    print(f"packet filter, batches of {BATCH}: microseconds a packet")
    filters = measureFilter(options.rules, options.rounds)
    for label, cost in filters:
        print(f"  {label:<44}{cost:>9.3f}")
    absolute = {
        "netmap_milliseconds": {label: round(cost, 2) for label, cost in steps},
        "netmap_node": nodes,
        "filter_microseconds_a_packet": {
            label: round(cost, 3) for label, cost in filters
        },
    }
    conclude("netmap", {}, absolute, options)


if __name__ == "__main__":
    main(sys.argv[1:])
