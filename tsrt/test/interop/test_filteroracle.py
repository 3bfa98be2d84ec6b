"""
Our packet filter beside that of a real node: the same rules, the same packets.

A real node with a device in the kernel gets rules from our control server and
packets from our nodes; what comes out of its device is what its filter let in.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import tsrt
from tsrt.addresses import Prefix, parseAddress
from tsrt.netmap.filter import PacketFilter
from tsrt.netmap.routes import RouteTable
from tsrt.netmap.rules import compileRules
from tsrt.node import Node
from tsrt.test.filterpackets import ACK, RST, SYN, SYN_ACK, ip, tcp, udp
from tsrt.test.interop.programs import Program, eventually, required, spawn
from tsrt.test.interop.tailscaled import Tailscaled
from tsrt.test.interop.test_devtailnet import DevServersTestCase

POLICIES = 16
PACKETS = 50
ROUNDS = 4
SEED = 20261124

PORTS = (1, 22, 53, 80, 443, 1500, 65535)
PORT_TEXTS = ("*", "22", "80,443", "1000-2000", "53", "1-65535")
PORTLESS = (2, 47, 50, 116)


class Case(NamedTuple):
    """
    One packet.

    @ivar sender: which of our nodes sends it.
    @ivar what: what it is, for people.
    """

    number: int
    sender: int
    what: str
    packet: bytes


class Senders(NamedTuple):
    """Who sends, and to whom, with the addresses of both families."""

    nodes: list[Node]
    own: list[tuple[str, str]]
    real: tuple[str, str]


class Generator:
    """Makes policies and packets by chance, the same each time."""

    def __init__(self, senders: Senders) -> None:
        self._random = Random(SEED)
        self._senders = senders
        self._number = 0

    def policy(self, mark: int) -> str:
        """
        A policy; UDP to the port C{mark} is allowed in each, by which it shows
        that it is in force.
        """
        random = self._random
        everybody = ["*", "100.64.0.0/10", "fd7a:115c:a1e0::/48", "autogroup:member"]
        for addresses in self._senders.own:
            everybody += addresses
        rules = [
            {
                "action": "accept",
                "proto": "udp",
                "src": ["*"],
                "dst": [f"*:{mark}"],
            }
        ]
        for _ in range(random.randrange(5)):
            rule: dict[str, Any] = {
                "action": "accept",
                "src": random.sample(everybody, random.choice((1, 1, 2))),
            }
            kind = random.choice(("", "tcp", "udp", "sctp", "icmp", "47", "116"))
            ports = random.choice(PORT_TEXTS)
            if kind:
                rule["proto"] = kind
            if kind in ("icmp", "47", "116"):
                ports = "*"
            target = random.choice(("*", self._senders.real[0], self._senders.real[1]))
            target = f"[{target}]" if ":" in target else target
            rule["dst"] = [f"{target}:{ports}"]
            rules.append(rule)
        return json.dumps({"acls": rules})

    def mark(self, sender: int, port: int) -> Case:
        """A datagram that each policy with this mark lets in."""
        number, data = self._next()
        packet = udp(
            self._senders.own[sender][0], self._senders.real[0], port, data=data
        )
        return Case(number, sender, "mark", packet)

    def _next(self) -> tuple[int, bytes]:
        self._number += 1
        return self._number, b"case#%06d#" % self._number

    def case(self) -> Case:
        """A packet of any kind."""
        random = self._random
        number, data = self._next()
        # Fragments begin at multiples of eight bytes.
        data = data.ljust(64, b".")
        sender = random.randrange(len(self._senders.own))
        family = random.randrange(2)
        source, real = self._senders.own[sender][family], self._senders.real[family]
        target = real
        if random.random() < 0.1:
            target = random.choice(
                (
                    ("100.64.0.99", "224.0.0.9", "169.254.7.7", "198.51.100.1"),
                    ("fd7a:115c:a1e0::99", "ff02::9", "fe80::9", "2001:db8::1"),
                )[family]
            )
        what = random.choice(
            (
                *("tcp", "tcp", "tcp", "udp", "udp", "ack", "synack", "rst", "sctp"),
                *("echo", "echo", "reply", "error", "redirect", "other", "other"),
                *("fragment", "later", "tiny", "zero"),
            )
        )
        port, sourcePort = random.choice(PORTS), random.choice((1, 40000, 60001))
        described = f"{what} {source} to {target} port {port}"
        if what in ("tcp", "ack", "synack", "rst"):
            flags = {"tcp": SYN, "ack": ACK, "synack": SYN_ACK, "rst": RST}[what]
            packet = tcp(source, target, port, flags, sourcePort, data)
        elif what == "udp":
            packet = udp(source, target, port, sourcePort, data)
        elif what == "sctp":
            ports = sourcePort.to_bytes(2, "big") + port.to_bytes(2, "big")
            packet = ip(source, target, 132, ports + bytes(8) + data)
        elif what in ("echo", "reply", "error", "redirect"):
            kinds = {"echo": (8, 128), "reply": (0, 129), "error": (3, 1)}
            kind = {"redirect": (5, 137), **kinds}[what][family]
            head = bytes((kind, 0, 0, 0, 0, 1, 0, 1))
            packet = ip(source, target, (1, 58)[family], head + data)
        elif what in ("other", "zero"):
            number4 = 0 if what == "zero" else random.choice(PORTLESS)
            described += f" protocol {number4}"
            packet = ip(source, target, number4, bytes(8) + data)
        else:
            packet = self._fragment(what, source, target, port, data)
        return Case(number, sender, described, packet)

    def _fragment(
        self, what: str, source: str, target: str, port: int, data: bytes
    ) -> bytes:
        """A part of a datagram."""
        head = bytes((0x9C, 0x40)) + port.to_bytes(2, "big") + bytes((2, 0, 0, 0))
        offset = {"fragment": 0, "later": 100, "tiny": 1}[what]
        body = head + data if not offset else data
        if ":" not in source:
            return ip(
                source, target, 17, body, moreFragments=True, fragmentUnits=offset
            )
        header = bytes((17, 0)) + (offset << 3 | 1).to_bytes(2, "big") + bytes(4)
        return ip(source, target, 44, header + body)


def _whySkip() -> str | None:
    """Why this test cannot run here, if it cannot."""
    if DevServersTestCase.skip:
        return DevServersTestCase.skip
    if not os.path.exists("/dev/net/tun"):
        return required("this machine has no tunnel devices")
    return None


class FilterOracleTests(DevServersTestCase):
    """One real node, two of ours, and chance."""

    skip = _whySkip()

    async def prepare(self) -> None:
        """Start the real node, what watches its device, and ours."""
        await super().prepare()
        self.daemon = Tailscaled(
            self.reactor, self.namespace, self.directory / "d", "ts0"
        )
        self.cleanUp(self.daemon.stop)
        await self.daemon.start()
        await self.daemon.up(self.controlURL, self.authKey, "real")
        nodes = [await self.startNode(name) for name in ("one", "two")]
        for node in nodes:
            await eventually(
                self.reactor, lambda node=node: node.peerByName("real"), "it is seen"
            )
        peer = nodes[0].peerByName("real")
        assert peer is not None
        real = [prefix.text().partition("/")[0] for prefix in peer.addresses]
        self.senders = Senders(
            nodes,
            [(node.status.addresses[0], node.status.addresses[1]) for node in nodes],
            (real[0], real[1]),
        )
        self.watch = Program("watch", self.directory / "watch.log")
        spawn(
            self.reactor,
            self.watch,
            self.namespace.command(
                *(sys.executable, "-m", "tsrt.test.interop.devicewatch", "ts0")
            ),
            self.directory,
            {"PYTHONPATH": str(Path(tsrt.__file__).parent.parent)},
        )
        self.cleanUp(self.watch.stop, self.reactor)
        await eventually(
            self.reactor, lambda: "watching" in self.watch.output(), "it watches"
        )

    def send(self, case: Case) -> None:
        """Send a packet through the tunnel, past all that our node would check."""
        engine: Any = self.senders.nodes[case.sender]._engine
        peer = engine.findPeer("real")
        engine.datapath.sendPackets(peer.key.raw, [case.packet], engine._overlay.now())

    def seen(self) -> set[int]:
        """The numbers of packets that came out of the device."""
        return {int(line) for line in self.watch.output().split() if line.isdigit()}

    async def arrives(self, case: Case) -> None:
        """Send a packet until it comes out."""

        def sent() -> bool:
            self.send(case)
            return case.number in self.seen()

        await eventually(self.reactor, sent, f"{case.what} arrives", patience=20)

    def ourFilter(self) -> PacketFilter:
        """Our filter with the rules, addresses and peers of the real node."""
        view: Any = self.control._core.view
        found = PacketFilter()
        found.setRules(compileRules(view.filter(self.control.node("real"))))
        self.assertEqual(found.errors, [])
        sources: RouteTable[bytes] = RouteTable()
        for number, addresses in enumerate(self.senders.own):
            for text in addresses:
                sources.insert(Prefix.host(parseAddress(text)), bytes((number,)) * 32)
        found.setSources(sources)
        found.setLocal(Prefix.host(parseAddress(a)) for a in self.senders.real)
        return found

    async def judged(self, cases: list[Case], port: int, expected: set[int]) -> None:
        """
        Send packets and return when the real node has judged them.

        A path that changes, a short queue or a full buffer may lose a run of
        packets.  Loss is no judgement: what is expected and has not come out is
        sent again.  What comes out cannot have been lost, so this hides no
        packet that the real node lets in and we would not.
        """
        for _ in range(ROUNDS):
            for case in cases:
                self.send(case)
            # What was sent before these has been judged when they are there.
            for sender in range(2):
                await self.arrives(self.generator.mark(sender, port))
            seen = self.seen()
            cases = [each for each in cases if each.number in expected - seen]
            if not cases:
                return

    async def test_agreement(self) -> None:
        """Both let in the same packets, whatever the rules."""
        self.generator = generator = Generator(self.senders)
        wrong: list[str] = []
        admitted = 0
        for round in range(POLICIES):
            port = 20000 + round
            policy = generator.policy(port)
            self.control.setPolicy(policy)
            for sender in range(2):
                await self.arrives(generator.mark(sender, port))
            cases = [generator.case() for _ in range(PACKETS)]
            ours = self.ourFilter()
            letIn = {
                case.number
                for case in cases
                if ours.admit([case.packet], bytes((case.sender,)) * 32)
            }
            admitted += len(letIn)
            await self.judged(cases, port, letIn)
            seen = self.seen()
            wrong += [
                f"{case.what}: we say {case.number in letIn}; {policy}"
                for case in cases
                if (case.number in letIn) != (case.number in seen)
            ]
        self.assertEqual(wrong, [], "\n".join(wrong))
        # Chance has asked for both.
        total = POLICIES * PACKETS
        self.assertGreater(admitted, total // 5)
        self.assertLess(admitted, total * 4 // 5)
