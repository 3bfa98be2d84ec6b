"""
Clocks that are set while a node runs.

A node has two: the time of day by its C{wallclock}, and its reactor's time,
which most reactors take from the time of day as well.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.config import NodeConfig, Seams
from tsrt.netstack.stack import Stack
from tsrt.node import Node
from tsrt.runtime.overlay import NodeOverlay
from tsrt.runtime.timers import DeadlineTimer
from tsrt.test.faultworld import FaultTestCase, Stream
from tsrt.testing.tailnet import PersistentMemoryStore, TestTailnet
from tsrt.tunnel.timestamps import decodeTimestamp

TWO_DAYS = 2 * 86400.0


class WallClockTests(FaultTestCase):
    """The time of day of one node is set; timers go on."""

    def setUp(self) -> None:
        self.offset = 0.0
        self.net = TestTailnet(nodes=("b",))
        self.addCleanup(self.net.close)
        self.addSkewed("a")
        self.net.waitUp("a")
        self.net.elapse(1)
        self.serve("b")
        self.stream = Stream(self.net, "a", "b")
        self.addCleanup(self.stream.stop)
        self.timestamps: list[int] = []
        self.watchTimestamps()

    def addSkewed(self, name: str) -> Node:
        """A node whose clock is off by C{offset}."""
        host = self.net.hosts.get(name) or self.net.internet.host(name)
        self.net.hosts[name] = host
        store = self.net.states.setdefault(name, PersistentMemoryStore())
        node = Node(
            host,
            NodeConfig(
                authKey=self.net.authKey.secret,
                hostname=name,
                controlURL="http://192.168.255.1",
            ),
            state=store,
            seams=Seams(
                randbytes=self.net.internet.randbytes,
                wallclock=lambda: self.net.clock.seconds() + self.offset,
            ),
            name=name,
        )
        self.net.nodes[name] = node
        node.startService()
        return node

    def watchTimestamps(self) -> None:
        """Note every timestamp of a handshake of the skewed node."""
        context = self.net["a"]._engine.datapath._tunnel._context
        source = context.timestamp

        def timestamp() -> bytes:
            label = source()
            self.timestamps.append(decodeTimestamp(label))
            return label

        context.timestamp = timestamp

    def assertIncreasing(self) -> None:
        """Timestamps went up all the time, and there were some."""
        self.assertGreaterEqual(len(self.timestamps), 2)
        self.assertEqual(self.timestamps, sorted(set(self.timestamps)))

    def renew(self) -> None:
        """Go on until sessions have been renewed."""
        self.net.elapse(260)

    def test_setBack(self) -> None:
        """Two days back: handshakes still succeed, with newer timestamps."""
        self.renew()
        self.offset = -TWO_DAYS
        self.renew()
        self.assertIncreasing()
        self.assertInnocent()

    def test_setForward(self) -> None:
        """Two days forward, and back again."""
        self.offset = TWO_DAYS
        self.renew()
        self.offset = 0.0
        self.renew()
        self.assertIncreasing()
        self.assertInnocent()

    def test_manySteps(self) -> None:
        """Forward and back, again and again."""
        for days in (1, -1, 400, -400, 0, 20_000, 0):
            self.offset = days * 86400.0
            self.renew()
        self.assertIncreasing()
        self.assertInnocent()

    def test_beforeTheEpoch(self) -> None:
        """A machine that thinks it is 1960."""
        self.offset = -self.net.clock.seconds() - 3e8
        self.renew()
        self.assertIncreasing()
        self.assertInnocent()

    def test_restartAfterFuture(self) -> None:
        """A node that ran in the future is heard after a restart in the present."""
        self.offset = TWO_DAYS
        self.renew()
        newest = self.timestamps[-1]
        self.stream.finish(self)
        self.net.wait(self.net["a"].stopService())
        self.offset = 0.0
        self.net["a"].startService()
        self.net.waitUp("a")
        self.watchTimestamps()
        result = self.net.wait(self.net["a"].ping("b"))
        self.assertLess(result.seconds, 5)
        self.assertGreater(self.timestamps[-1], newest)

    def test_crashInTheFuture(self) -> None:
        """A node that crashed in the future is heard after a restart."""
        self.offset = TWO_DAYS
        self.renew()
        newest = self.timestamps[-1]
        self.stream.stop()
        saved = dict(self.net.states["a"]._entries)
        self.net.wait(self.net["a"].stopService())
        # As if the stop had not happened: only what was saved before counts.
        self.net.states["a"]._entries = saved
        self.offset = 0.0
        self.net["a"].startService()
        self.net.waitUp("a")
        self.watchTimestamps()
        self.assertLess(self.net.wait(self.net["a"].ping("b")).seconds, 5)
        self.assertGreater(self.timestamps[-1], newest)

    def test_startTwoDaysOff(self) -> None:
        """A node whose clock is wrong from the start joins all the same."""
        for offset in (TWO_DAYS, -TWO_DAYS):
            self.offset = offset
            name = f"off{'' if offset > 0 else '-back'}"
            self.addSkewed(name)
            [status] = self.net.waitUp(name)
            self.assertTrue(status.isRunning)
            self.assertEqual(status.health, ())
            self.net.wait(self.net[name].ping("b"))

    def test_T_peersDoNotExpireByOurClock(self) -> None:
        """Key expiry of peers is judged by control's time, not by a wrong clock."""
        self.net.control.setExpiry("b", self.net.clock.seconds() + 86400)
        self.net.elapse(5)
        self.offset = TWO_DAYS
        self.net.control.closePoll("a")
        self.net.elapse(200)
        self.assertInnocent()


class ReactorClockTests(FaultTestCase):
    """The reactor's own time is set, for all nodes and servers at once."""

    def test_setForward(self) -> None:
        """All timers fire at once; connections live on."""
        self.makeTailnet()
        self.net.clock.rightNow += TWO_DAYS
        self.net.elapse(60)
        self.assertInnocent(patience=90)

    def test_setForwardWhileIdle(self) -> None:
        """The same without anything under way."""
        self.makeTailnet()
        self.stream.stop()
        self.net.elapse(30)
        self.net.clock.rightNow += TWO_DAYS
        self.net.elapse(30)
        self.stream._say()
        self.assertInnocent(patience=90)

    def test_setForwardInTheMiddleOfATransfer(self) -> None:
        """A transfer whose segments are under way goes on."""
        self.makeTailnet()
        client = self.connect("a", "b")
        data = bytes(range(256)) * 4000
        client.transport.write(data)
        self.net.elapse(0.2)
        self.net.clock.rightNow += TWO_DAYS
        self.net.elapse(90)
        self.assertEqual(bytes(client.received), data)
        self.assertInnocent(patience=90)


class TimerTests(SynchronousTestCase):
    """What holds the times of a node together when its reactor's time is set."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = 1e9
        self.overlay = NodeOverlay(self.clock, Stack(randbytes=bytes))
        self.overlay.attach(lambda: None, lambda name: [])
        self.woken: list[float] = []
        self.timer = DeadlineTimer(
            self.clock, lambda: self.woken.append(self.overlay.now())
        )

    def test_timeGoesOn(self) -> None:
        """Steps of either direction take no time; seconds between them do."""
        began = self.overlay.now()
        for step in (TWO_DAYS, -TWO_DAYS, -TWO_DAYS, TWO_DAYS, 1e9, -1e9):
            self.clock.rightNow += step
            self.overlay.now()
            self.clock.rightNow += 5
            self.overlay.now()
        self.assertAlmostEqual(self.overlay.now() - began, 30, places=3)

    def test_pausesAreNoSteps(self) -> None:
        """A node that is not running may look at the clock as seldom as it likes."""
        began = self.overlay.now()
        self.overlay.detach()
        self.clock.rightNow += 3600
        self.overlay.attach(lambda: None, lambda name: [])
        self.assertEqual(self.overlay.now() - began, 3600)

    def test_lateWakeUp(self) -> None:
        """
        After a step back the next packet that moves brings the timer back.

        Without one the reactor itself would wait for two days.
        """
        self.timer.arm(self.overlay.now() + 1, self.overlay.now())
        self.clock.rightNow -= TWO_DAYS
        self.overlay.now()
        self.clock.advance(2)
        self.assertEqual(self.woken, [])
        now = self.overlay.now()
        self.timer.arm(now + 100, now)
        self.clock.advance(0)
        self.assertEqual(self.woken, [now])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlyWakeUp(self) -> None:
        """After a step forward the timer wakes too early, which does no harm."""
        began = self.overlay.now()
        self.timer.arm(began + 10, began)
        self.clock.rightNow += TWO_DAYS
        self.clock.advance(0)
        self.assertEqual(self.woken, [began])
        self.timer.arm(began + 10, self.overlay.now())
        self.clock.advance(9)
        self.assertEqual(len(self.woken), 1)
        self.clock.advance(1)
        self.assertEqual(self.woken, [began, began + 10])
