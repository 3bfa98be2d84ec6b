"""What the stack of a router does beside that of a host."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tsrt.netstack.held import HeldSYN
from tsrt.netstack.icmp import EchoRequest
from tsrt.netstack.listen import Listener
from tsrt.netstack.stack import Stack
from tsrt.test.test_netstack_stack import A4, B4, makeStack, readSegment
from tsrt.wire.icmp import V4_ECHO_REPLY, V4_ECHO_REQUEST, buildICMP, parseICMP
from tsrt.wire.ip import PROTOCOL_ICMP, buildIP, parseIP
from tsrt.wire.tcp import ACK, RST, SYN, SegmentBuilder

OUTSIDE = bytes((192, 0, 2, 7))


class RouterTestCase(SynchronousTestCase):
    """A stack that takes packets to any address."""

    def setUp(self) -> None:
        self.stack: Stack = makeStack(anyAddress=True)
        self.builder = SegmentBuilder(B4, 5000, OUTSIDE, 80)

    def give(self, *packets: bytes) -> list[bytes]:
        """Give packets to the stack; what it says to that."""
        self.stack.receive(list(packets), 1.0)
        return self.stack.drain(1.0)


class HeldTests(RouterTestCase):
    """Requests that nobody has decided about yet."""

    def setUp(self) -> None:
        super().setUp()
        self.held = HeldSYN()
        self.answer: Listener | HeldSYN | None = self.held
        self.asked: list[tuple[bytes, int, bytes, int]] = []
        self.stack.fallback = self.ask

    def ask(self, *ends: object) -> Listener | HeldSYN | None:
        """The fallback."""
        self.asked.append(ends)  # type: ignore[arg-type]
        return self.answer

    def test_kept(self) -> None:
        """Nobody is told anything; each repetition asks again."""
        for sequence in (100, 100):
            self.assertEqual(self.give(self.builder.build(sequence, 0, SYN, 900)), [])
        self.assertEqual(self.asked, [(B4, 5000, OUTSIDE, 80)] * 2)
        self.assertEqual(self.stack.flows(), [])
        self.assertEqual(readSegment(self.held.packet or b"").seq, 100)

    def test_accepted(self) -> None:
        """Given once more, the request is answered as if it came just now."""
        self.give(self.builder.build(100, 0, SYN, 900))
        listener = self.answer = self.stack.listenDetached()
        assert self.held.packet is not None
        (packet,) = self.give(self.held.packet)
        segment = readSegment(packet)
        self.assertEqual((segment.flags, segment.ack), (SYN | ACK, 101))
        self.give(self.builder.build(101, (segment.seq + 1) & 0xFFFFFFFF, ACK, 900))
        flow = listener.accept()
        assert flow is not None
        self.assertEqual((flow.localAddress, flow.localPort), (OUTSIDE, 80))
        # What belongs to the flow asks nobody any more.
        self.assertEqual(len(self.asked), 2)

    def test_refused(self) -> None:
        """Or it is refused."""
        self.give(self.builder.build(100, 0, SYN, 900))
        self.answer = None
        assert self.held.packet is not None
        (packet,) = self.give(self.held.packet)
        self.assertTrue(readSegment(packet).flags & RST)


class DetachedTests(RouterTestCase):
    """A listener without a port."""

    def test_noPort(self) -> None:
        """It gets nothing by itself, and takes no port from others."""
        listener = self.stack.listenDetached()
        (packet,) = self.give(self.builder.build(100, 0, SYN, 900))
        self.assertTrue(readSegment(packet).flags & RST)
        self.stack.listenDetached()
        self.stack.listenTCP(80).close()
        listener.close()
        self.assertRaises(ValueError, self.stack.listenDetached, 0)

    def test_closed(self) -> None:
        """Closed, it lets nobody in."""
        listener = self.stack.listenDetached()
        self.stack.fallback = lambda *ends: listener
        listener.close()
        (packet,) = self.give(self.builder.build(100, 0, SYN, 900))
        self.assertTrue(readSegment(packet).flags & RST)


class EchoTests(RouterTestCase):
    """Echo requests to others."""

    def request(self, address: bytes) -> bytes:
        """A ping to an address."""
        message = buildICMP(B4, address, V4_ECHO_REQUEST, 0, 7 << 16 | 3, b"data")
        return buildIP(B4, address, PROTOCOL_ICMP, message)

    def test_fallback(self) -> None:
        """Somebody else says whether they are answered."""
        asked: list[EchoRequest] = []
        self.stack.echoFallback = asked.append
        self.assertEqual(self.give(self.request(OUTSIDE)), [])
        self.assertEqual(asked, [EchoRequest(B4, OUTSIDE, 7 << 16 | 3, b"data")])
        self.stack.answerEcho(asked[0], 1.0)
        (packet,) = self.stack.drain(1.0)
        header = parseIP(packet)
        self.assertEqual((header.source, header.destination), (OUTSIDE, B4))
        reply = parseICMP(packet, header.start, header.end)
        self.assertEqual(
            (reply.type, reply.ident, reply.sequence, reply.payload),
            (V4_ECHO_REPLY, 7, 3, b"data"),
        )

    def test_own(self) -> None:
        """Those to the node itself are answered by it."""
        self.stack = makeStack(A4, anyAddress=True)
        self.stack.echoFallback = lambda request: self.fail("asked")
        (packet,) = self.give(self.request(A4))
        self.assertEqual(packet[20], V4_ECHO_REPLY)
