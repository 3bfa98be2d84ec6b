"""Tests for the services that watch a node: pings and the status file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import AuthKeyInvalid
from tsrt.failures import NoSuchPeer, TailnetTimeout
from tsrt.runtime.ping import PingResult
from tsrt.runtime.status import HealthWarning, NodeState, StatusPublisher
from tsrt.services.pinger import RETRY, PingService
from tsrt.services.statusfile import StatusFileService, statusDocument
from tsrt.test.overlaynet import recordLog
from tsrt.testing.tailnet import TestTailnet

ANSWER = PingResult("100.64.0.2", "b.example", 0.0123, "relay r900")


class PingTests(SynchronousTestCase):
    """L{PingService} with a node that is played."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.answers: list[Deferred[PingResult]] = []
        self.lines = recordLog(self)
        self.service = PingService(self.clock, self.ping, "b", interval=10)

    def ping(self, host: str) -> Deferred[PingResult]:
        self.asked.append(host)
        return self.answers.pop(0) if self.answers else succeed(ANSWER)

    def said(self) -> list[str]:
        return [line for line in self.lines() if line.startswith("ping")]

    def test_regularly(self) -> None:
        """A ping goes out at once, and another each interval; each is logged."""
        self.service.startService()
        self.assertEqual(["b"], self.asked)
        self.assertEqual(
            ["ping b.example (100.64.0.2): 12.3 ms by relay r900"], self.said()
        )
        self.clock.pump([5, 4.9])
        self.assertEqual(1, len(self.asked))
        self.clock.advance(0.2)
        self.assertEqual(2, len(self.asked))
        self.service.stopService()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_failures(self) -> None:
        """Failures are retried soon; the same trouble is told once."""
        self.answers = [
            fail(NoSuchPeer("no b")),
            fail(NoSuchPeer("no b")),
            fail(TailnetTimeout("b did not answer")),
        ]
        self.service.startService()
        self.clock.pump([RETRY] * 3)
        self.assertEqual(4, len(self.asked))
        self.assertEqual(["ping b: no b", "ping b: b did not answer"], self.said()[:2])
        self.assertEqual(3, len(self.said()))
        self.answers = [fail(NoSuchPeer("no b"))]
        self.clock.advance(10)
        self.assertEqual("ping b: no b", self.said()[-1])
        self.service.stopService()

    def test_slowAnswer(self) -> None:
        """The next ping waits for the answer to the last."""
        slow: Deferred[PingResult] = Deferred()
        self.answers = [slow]
        self.service.startService()
        self.clock.advance(100)
        self.assertEqual(1, len(self.asked))
        slow.callback(ANSWER)
        self.clock.advance(10)
        self.assertEqual(2, len(self.asked))
        self.service.stopService()

    def test_stopInAPing(self) -> None:
        """Stopping cancels a ping under way without a word; it starts again."""
        cancelled = []
        self.answers = [Deferred(cancelled.append)]
        self.service.startService()
        self.service.stopService()
        self.assertEqual(1, len(cancelled))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual([], self.said())
        self.service.startService()
        self.assertEqual(1, len(self.said()))
        self.service.stopService()


class StatusFileTests(SynchronousTestCase):
    """L{StatusFileService}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.publisher = StatusPublisher()
        self.service = StatusFileService(self.publisher.watch, self.path)

    def read(self) -> dict[str, object]:
        return json.loads(self.path.read_text())

    def test_follows(self) -> None:
        """The file tells the present state, and every later one."""
        self.service.startService()
        self.assertEqual("NoState", self.read()["state"])
        self.publisher.update(
            state=NodeState.RUNNING,
            addresses=("100.64.0.1", "fd7a::1"),
            keyExpiry=datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC),
            warnings=(HealthWarning("x", "all is well"),),
        )
        self.assertEqual("Running", self.read()["state"])
        self.assertEqual(["100.64.0.1", "fd7a::1"], self.read()["addresses"])
        self.assertEqual("2027-01-02T03:04:05+00:00", self.read()["keyExpiry"])
        self.assertEqual([self.path.name], [p.name for p in self.siblings()])

    def siblings(self) -> list[Path]:
        return list(self.path.parent.glob(self.path.name + "*"))

    def test_error(self) -> None:
        """An error that ended the node is in the file, in words."""
        self.service.startService()
        error = AuthKeyInvalid("control refused the key")
        self.publisher.update(state=NodeState.STOPPED, error=error)
        self.assertIn("control refused the key", str(self.read()["error"]))

    def test_stop(self) -> None:
        """After a stop the file is gone and stays so; a start brings it back."""
        self.service.startService()
        self.service.stopService()
        self.publisher.update(state=NodeState.RUNNING)
        self.assertEqual([], self.siblings())
        self.service.stopService()
        self.service.startService()
        self.assertEqual("Running", self.read()["state"])

    def test_cannotWrite(self) -> None:
        """A file that cannot be written is a warning, and ends nothing."""
        lines = recordLog(self)
        service = StatusFileService(self.publisher.watch, self.path / "no" / "where")
        service.startService()
        self.publisher.update(state=NodeState.RUNNING)
        service.stopService()
        self.assertTrue(any("cannot be written" in line for line in lines()), lines())

    def test_document(self) -> None:
        """The document of a real node has what a script needs, and no secret."""
        tailnet = TestTailnet(nodes=["a"])
        self.addCleanup(tailnet.close)
        document = statusDocument(tailnet["a"].status)
        text = json.dumps(document)
        self.assertEqual("Running", document["state"])
        self.assertEqual("r900", document["homeRegion"])
        self.assertNotIn(tailnet.authKey.secret.reveal(), text)
        self.assertNotIn("privkey", text)
