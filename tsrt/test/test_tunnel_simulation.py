"""
Long runs of L{tsrt.tunnel.table} over good wires and bad ones.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tsrt.test.tunnelpair import Wire, drops, ipPacket


class SimulationTests(SynchronousTestCase):
    """
    Long runs over a bad wire.
    """

    def test_aDayOfOnePacketAMinute(self) -> None:
        """24 hours with a packet a minute each way lose nothing."""
        wire = Wire()
        first, second = wire.pair()
        for minute in range(24 * 60):
            first.send(second, ipPacket(minute))
            wire.run(30)
            second.send(first, ipPacket(minute))
            wire.run(30)
        expected = [ipPacket(minute) for minute in range(24 * 60)]
        self.assertEqual(second.got, expected)
        self.assertEqual(first.got, expected)
        self.assertEqual(drops(first), {})
        self.assertEqual(drops(second), {})
        handshakes = first.table.counters.handshakesCompleted
        self.assertTrue(400 <= handshakes <= 750, handshakes)

    def test_aDayOneWay(self) -> None:
        """So do 24 hours in which only one side has anything to say."""
        wire = Wire()
        first, second = wire.pair()
        for minute in range(24 * 60):
            first.send(second, ipPacket(minute))
            wire.run(60)
        self.assertEqual(second.got, [ipPacket(m) for m in range(24 * 60)])

    def test_lossDuplicatesReordering(self) -> None:
        """
        Over a wire that loses a fifth, doubles a fifth and shuffles, what
        arrives is never doubled or changed, and about four fifths arrive.
        """
        for seed in range(6):
            wire = Wire(seed)
            first, second = wire.pair()
            wire.loss = wire.duplicates = 0.2
            wire.jitter = 0.3
            random = Random(seed)
            for number in range(1500):
                party, other = (
                    (first, second) if random.random() < 0.5 else (second, first)
                )
                party.send(other, ipPacket(number, random.randint(20, 1280)))
                wire.run(random.random() * 0.8)
            wire.run(30)
            got = first.got + second.got
            self.assertEqual(len(got), len(set(got)))
            numbers = {int.from_bytes(p[4:12], "big") for p in got}
            self.assertEqual(len(numbers), len(got))
            self.assertGreater(len(got), 1100)
            for packet in got:
                number = int.from_bytes(packet[4:12], "big")
                self.assertEqual(packet, ipPacket(number, len(packet)))

    def test_terribleWire(self) -> None:
        """Where 60 % are lost, sessions still come about, all the time."""
        for seed in range(4):
            wire = Wire(seed)
            first, second = wire.pair()
            wire.loss = 0.6
            wire.jitter = 1.0
            for number in range(1200):
                first.send(second, ipPacket(number))
                second.send(first, ipPacket(number))
                wire.run(1)
            self.assertGreater(len(first.got), 250)
            self.assertGreater(len(second.got), 250)

    def test_outages(self) -> None:
        """After each outage, however long, the next packets get through."""
        wire = Wire(4)
        first, second = wire.pair()
        for length in (3, 14, 16, 60, 119, 121, 178, 181, 300, 539, 541, 4000):
            wire.drop = lambda *_: True
            end = wire.now + length
            while wire.now < end:
                first.send(second, ipPacket(0))
                second.send(first, ipPacket(0))
                wire.run(1)
            wire.drop = lambda *_: False
            wire.run(6)
            first.got.clear()
            second.got.clear()
            first.send(second, ipPacket(length))
            second.send(first, ipPacket(length))
            wire.run(1)
            self.assertIn(ipPacket(length), first.got, length)
            self.assertIn(ipPacket(length), second.got, length)

    def test_manyNodes(self) -> None:
        """Twelve nodes that all talk to each other all reach each other."""
        wire = Wire(9)
        wire.loss = 0.05
        wire.jitter = 0.05
        nodes = [wire.join(f"node{n}") for n in range(12)]
        for one in nodes:
            for other in nodes:
                if one is not other:
                    one.knows(other)
        for turn in range(5):
            for a, one in enumerate(nodes):
                for b, other in enumerate(nodes):
                    if a != b:
                        one.send(other, ipPacket(turn * 10_000 + a * 100 + b))
            wire.run(40)
        for b, node in enumerate(nodes):
            senders = {int.from_bytes(p[4:12], "big") % 10_000 // 100 for p in node.got}
            self.assertEqual(senders, set(range(12)) - {b})
            for packet in node.got:
                self.assertEqual(int.from_bytes(packet[4:12], "big") % 100, b)
