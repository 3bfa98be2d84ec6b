"""Tests of listening: accepting, backlogs, floods, fallbacks."""

from __future__ import annotations

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NoFreePort, PortInUse
from tsrt.netstack.flow import CloseReason, TCPOptions
from tsrt.netstack.limits import StackLimits
from tsrt.netstack.listen import Listener
from tsrt.netstack.stack import Stack
from tsrt.test.test_netstack_stack import (
    A4,
    A6,
    B4,
    B6,
    C4,
    Network,
    makeStack,
    readSegment,
)
from tsrt.wire.tcp import ACK, RST, SYN, Segment, SegmentBuilder


class Peer:
    """A remote end that sends segments by hand."""

    def __init__(
        self,
        stack: Stack,
        port: int = 5000,
        remote: bytes = B4,
        local: bytes = A4,
        localPort: int = 80,
    ) -> None:
        self.stack = stack
        self.builder = SegmentBuilder(remote, port, local, localPort)
        self.ack = 0

    def syn(self, now: float = 0.0) -> list[Segment]:
        """Send a SYN and read what comes back."""
        self.stack.receive([self.builder.build(100, 0, SYN, 900)], now)
        answers = [readSegment(packet) for packet in self.stack.drain(now)]
        for answer in answers:
            self.ack = (answer.seq + 1) & 0xFFFFFFFF
        return answers

    def finish(self, now: float = 0.0) -> list[Segment]:
        """Send the last segment of the handshake."""
        self.stack.receive([self.builder.build(101, self.ack, ACK, 900)], now)
        return [readSegment(packet) for packet in self.stack.drain(now)]

    def reset(self, now: float = 0.0) -> None:
        """Send a reset."""
        self.stack.receive([self.builder.build(101, 0, RST, 0)], now)


class ListenTests(SynchronousTestCase):
    """Binding and accepting."""

    def setUp(self) -> None:
        self.stack = makeStack(A4, A6)

    def test_acceptsOnlyEstablished(self) -> None:
        """A half-open flow cannot be accepted and is not announced."""
        listener = self.stack.listenTCP(80)
        peer = Peer(self.stack)
        peer.syn()
        self.assertIsNone(listener.accept())
        self.assertEqual((listener.halfOpen, listener.waiting), (1, 0))
        self.assertEqual(self.stack.takeReady(), [])
        peer.finish()
        self.assertEqual((listener.halfOpen, listener.waiting), (0, 1))
        ready = self.stack.takeReady()
        flow = listener.accept()
        assert flow is not None
        # The listener comes first, so that the flow is known when it comes.
        self.assertEqual(ready, [listener, flow])
        self.assertTrue(flow.established)
        self.assertEqual((flow.remoteAddress, flow.remotePort), (B4, 5000))
        self.assertIsNone(listener.accept())
        self.assertEqual(self.stack.counters.flowsAccepted, 1)

    def test_order(self) -> None:
        """Flows are accepted in the order in which they were established."""
        listener = self.stack.listenTCP(80)
        peers = [Peer(self.stack, port) for port in (5001, 5002, 5003)]
        for peer in peers:
            peer.syn()
        for peer in reversed(peers):
            peer.finish()
        got = [flow.remotePort for flow in iter(listener.accept, None)]
        self.assertEqual(got, [5003, 5002, 5001])

    def test_scopes(self) -> None:
        """Each listener gets what was sent to its address or family."""
        listeners = {
            scope: self.stack.listenTCP(80, address=scope) for scope in (A4, 4, 6)
        }
        self.assertRaises(PortInUse, self.stack.listenTCP, 80)
        self.stack.setAddresses([A4, A6, C4])
        for local, remote, scope in ((A4, B4, A4), (C4, B4, 4), (A6, B6, 6)):
            peer = Peer(self.stack, remote=remote, local=local)
            peer.syn()
            peer.finish()
            flow = listeners[scope].accept()
            assert flow is not None
            self.assertEqual(flow.localAddress, local)

    def test_wildcardTakesBothFamilies(self) -> None:
        """A listener without an address takes IPv4 and IPv6."""
        listener = self.stack.listenTCP(80)
        for local, remote in ((A4, B4), (A6, B6)):
            peer = Peer(self.stack, remote=remote, local=local)
            peer.syn()
            peer.finish()
        self.assertEqual(listener.waiting, 2)

    def test_otherFamilyIsRefused(self) -> None:
        """A listener of one family refuses the other."""
        self.stack.listenTCP(80, address=6)
        (answer,) = Peer(self.stack).syn()
        self.assertEqual(answer.flags, RST | ACK)

    def test_beforeAddresses(self) -> None:
        """A port can be taken before the node has addresses."""
        stack = makeStack()
        listener = stack.listenTCP(80, address=A4)
        stack.setAddresses([A4])
        peer = Peer(stack)
        peer.syn()
        peer.finish()
        self.assertIsNotNone(listener.accept())

    def test_options(self) -> None:
        """The flows have the settings of the listener."""
        options = TCPOptions(timeWait=0.5, selectiveAck=False)
        self.stack.listenTCP(80, options=options)
        builder = SegmentBuilder(B4, 5000, A4, 80)
        offer = bytes.fromhex("04020101")
        self.stack.receive([builder.build(1, 0, SYN, 9, offer)], 0.0)
        (answer,) = (readSegment(packet) for packet in self.stack.drain(0.0))
        self.assertFalse(answer.options.sackPermitted)

    def test_arguments(self) -> None:
        """Ports, addresses and backlogs that make no sense are refused."""
        for port in (-1, 65536):
            self.assertRaises(ValueError, self.stack.listenTCP, port)
        self.assertRaises(ValueError, self.stack.listenTCP, 80, address=5)
        self.assertRaises(ValueError, self.stack.listenTCP, 80, address=b"abc")
        self.assertRaises(ValueError, self.stack.listenTCP, 80, backlog=0)
        self.assertIn("0 waiting", repr(self.stack.listenTCP(80)))

    def test_tooManyListeners(self) -> None:
        """The number of listeners is bounded."""
        stack = makeStack(limits=StackLimits(bindings=3))
        for _ in range(3):
            stack.listenTCP(0)
        self.assertRaises(NoFreePort, stack.listenTCP, 0)

    def test_close(self) -> None:
        """Closing resets what was not accepted and frees the port."""
        listener = self.stack.listenTCP(80)
        taken, waiting, half = (Peer(self.stack, port) for port in (5001, 5002, 5003))
        taken.syn()
        taken.finish()
        flow = listener.accept()
        assert flow is not None
        waiting.syn()
        waiting.finish()
        half.syn()
        listener.close()
        packets = [readSegment(packet) for packet in self.stack.drain(0.0)]
        resets = {p.destinationPort for p in packets if p.flags & RST}
        self.assertEqual(resets, {5002, 5003})
        self.assertIsNone(flow.closeReason)
        self.assertEqual(self.stack.flows(), [flow])
        self.assertIsNone(listener.accept())
        (answer,) = Peer(self.stack, 5004).syn()
        self.assertEqual(answer.flags, RST | ACK)
        self.assertIn("closed", repr(listener))

    def test_T_handles_closedTwice(self) -> None:
        """Closing once more does not close the next listener of the port."""
        old = self.stack.listenTCP(80)
        old.close()
        new = self.stack.listenTCP(80)
        old.close()
        peer = Peer(self.stack)
        peer.syn()
        peer.finish()
        self.assertEqual(new.waiting, 1)
        self.assertRaises(PortInUse, self.stack.listenTCP, 80)


class FloodTests(SynchronousTestCase):
    """Bounds that strangers run into."""

    def test_T_reap_synFlood(self) -> None:
        """A flood of SYNs grows nothing and does not hurt who is connected."""
        network = Network()
        client, server = network.connected()
        listener = network.b.listenTCP(443, network.now)
        network.run(1.0)

        def flood(first: int) -> None:
            for n in range(first, first + 2000):
                source = bytes((100, 100, n >> 8, n & 0xFF))
                packet = SegmentBuilder(source, 1000 + n, B4, 443).build(n, 0, SYN, 9)
                network.b.receive([packet], network.now)
                network.b.drain(network.now)

        flood(0)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        flood(2000)
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 50_000)
        self.assertEqual(listener.halfOpen, 256)
        self.assertEqual(len(network.b.flows()), 257)
        self.assertEqual(network.b.counters.droppedHalfOpen, 4000 - 256)
        self.assertEqual(listener.dropped, 4000 - 256)
        client.write(b"still here")
        network.run(1.0)
        self.assertEqual(server.read(), b"still here")

    def test_oneRemoteDoesNotFillTheBacklog(self) -> None:
        """A flood from one address leaves room for others."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        for port in range(1, 1001):
            Peer(stack, port).syn()
        self.assertEqual(listener.halfOpen, 64)
        other = Peer(stack, remote=C4)
        (answer,) = other.syn()
        self.assertEqual(answer.flags, SYN | ACK)
        other.finish()
        self.assertEqual(listener.waiting, 1)

    def test_T_reap_halfOpen(self) -> None:
        """Half-open flows are given up by themselves, and quietly make room."""
        network = Network(loss=1.0)
        listener = network.b.listenTCP(80, network.now)
        peers = [Peer(network.b, port, A4, B4) for port in range(1, 65)]
        for peer in peers:
            peer.syn(network.now)
        self.assertEqual(Peer(network.b, 99, A4, B4).syn(network.now), [])
        network.run(150.0)
        self.assertEqual((listener.halfOpen, network.b.flows()), (0, []))
        self.assertEqual(network.b.takeReady(), [])
        self.assertIsNone(network.b.deadline())
        self.assertTrue(Peer(network.b, 99, A4, B4).syn(network.now))

    def test_T_reap_halfOpenMakesRoom(self) -> None:
        """Half-open flows older than the limit make room at the next SYN."""
        stack = makeStack(A4, limits=StackLimits(halfOpen=4, halfOpenTimeout=5.0))
        listener = stack.listenTCP(80)
        for port in (1, 2, 3, 4):
            Peer(stack, port).syn(float(port))
        Peer(stack, 5).syn(5.9)
        self.assertEqual((listener.halfOpen, listener.dropped), (4, 1))
        stack.receive([SegmentBuilder(B4, 6, A4, 80).build(9, 0, SYN, 9)], 7.0)
        self.assertEqual((listener.halfOpen, listener.dropped), (3, 1))
        stack.drain(7.0)
        self.assertEqual(len(stack.flows()), 3)

    def test_backlog(self) -> None:
        """With the backlog full SYNs are dropped, and get in later."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80, backlog=2)
        for port in (1, 2):
            peer = Peer(stack, port)
            peer.syn()
            peer.finish()
        late = Peer(stack, 3)
        self.assertEqual(late.syn(), [])
        self.assertEqual(stack.counters.droppedBacklog, 1)
        self.assertIsNotNone(listener.accept())
        self.assertEqual(len(late.syn(1.0)), 1)

    def test_flowLimit(self) -> None:
        """At the limit of all flows SYNs are dropped."""
        stack = makeStack(A4, limits=StackLimits(flows=2))
        stack.listenTCP(80)
        for port in (1, 2, 3):
            Peer(stack, port).syn()
        self.assertEqual(len(stack.flows()), 2)
        self.assertEqual(stack.counters.droppedFlowLimit, 1)

    def test_resetWhileHalfOpen(self) -> None:
        """A half-open flow that is reset is forgotten without a word."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        peer = Peer(stack)
        peer.syn()
        peer.reset()
        self.assertEqual((listener.halfOpen, stack.flows()), (0, []))
        self.assertEqual((stack.takeReady(), stack.deadline()), ([], None))

    def test_resetBeforeAccept(self) -> None:
        """A flow that was reset before anybody took it is passed over."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        gone, good = Peer(stack, 1), Peer(stack, 2)
        for peer in (gone, good):
            peer.syn()
            peer.finish()
        gone.reset()
        flow = listener.accept()
        assert flow is not None
        self.assertEqual(flow.remotePort, 2)
        self.assertIsNone(listener.accept())

    def test_repeatedSyn(self) -> None:
        """A repeated SYN opens nothing new and is answered again."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        peer = Peer(stack)
        (first,) = peer.syn()
        (again,) = peer.syn(1.0)
        self.assertEqual((first.seq, first.flags), (again.seq, again.flags))
        self.assertEqual(listener.halfOpen, 1)


class FallbackTests(SynchronousTestCase):
    """Who takes connections that nobody listens for."""

    def setUp(self) -> None:
        self.stack = makeStack(A4)
        self.asked: list[tuple[bytes, int, bytes, int]] = []
        self.answer: Listener | None = None

        def fallback(
            remote: bytes, remotePort: int, local: bytes, localPort: int
        ) -> Listener | None:
            self.asked.append((remote, remotePort, local, localPort))
            return self.answer

        self.stack.fallback = fallback
        self.assertIs(self.stack.fallback, fallback)

    def test_R_FB_1_withoutFallback(self) -> None:
        """Without a fallback a closed port resets."""
        self.stack.fallback = None
        (answer,) = Peer(self.stack, localPort=81).syn()
        self.assertEqual(answer.flags, RST | ACK)
        self.assertEqual(self.asked, [])

    def test_R_FB_2_explicitListener(self) -> None:
        """A port with a listener of its own never reaches the fallback."""
        self.stack.listenTCP(80)
        (answer,) = Peer(self.stack).syn()
        self.assertEqual((answer.flags, self.asked), (SYN | ACK, []))

    def test_declined(self) -> None:
        """What the fallback declines is reset."""
        (answer,) = Peer(self.stack, localPort=81).syn()
        self.assertEqual(answer.flags, RST | ACK)
        self.assertEqual(self.asked, [(B4, 5000, A4, 81)])

    def test_taken(self) -> None:
        """What the fallback takes is accepted from its listener."""
        self.answer = self.stack.listenTCP(9999)
        peer = Peer(self.stack, localPort=81)
        (answer,) = peer.syn()
        self.assertEqual(answer.flags, SYN | ACK)
        peer.finish()
        flow = self.answer.accept()
        assert flow is not None
        self.assertEqual(flow.localPort, 81)
        self.assertEqual(len(self.asked), 1)

    def test_closedListener(self) -> None:
        """A fallback that answers with a closed listener has declined."""
        self.answer = self.stack.listenTCP(9999)
        self.answer.close()
        (answer,) = Peer(self.stack, localPort=81).syn()
        self.assertEqual(answer.flags, RST | ACK)

    def test_R_FB_3_overLimits(self) -> None:
        """Beyond the bounds of its listener SYNs are dropped."""
        self.stack = makeStack(A4, limits=StackLimits(halfOpenPerRemote=2))
        listener = self.stack.listenTCP(9999)
        self.stack.fallback = lambda *ends: listener
        for port in (81, 82):
            self.assertEqual(len(Peer(self.stack, localPort=port).syn()), 1)
        self.assertEqual(Peer(self.stack, localPort=83).syn(), [])


class AddressTests(SynchronousTestCase):
    """Half-open flows of an address that is removed."""

    def test_addressRemoved(self) -> None:
        """They end without a packet and without a trace."""
        stack = makeStack(A4)
        listener = stack.listenTCP(80)
        peer = Peer(stack)
        peer.syn()
        (flow,) = stack.flows()
        stack.setAddresses([C4])
        self.assertIs(flow.closeReason, CloseReason.ABORTED)
        self.assertEqual((listener.halfOpen, stack.flows()), (0, []))
        self.assertEqual((stack.drain(0.0), stack.takeReady()), ([], []))
