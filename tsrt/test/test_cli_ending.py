"""Tests for L{tsrt.cli.ending}, L{tsrt.cli.vital} and L{tsrt.cli.hangup}."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.runtime import platform
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tsrt.cli.ending import Ending, exitWithFailure
from tsrt.cli.hangup import HangUpService
from tsrt.cli.vital import VitalEndpoint
from tsrt.errors import ConfigError, PortInUse, TSRTError


@implementer(IReactorCore)
class StoppableClock(Clock):  # type: ignore[misc]  # only what is used of it
    """A clock that can be stopped, once, as a reactor can."""

    running = True

    def stop(self) -> None:
        if not self.running:
            raise ReactorNotRunning()
        self.running = False

    def callFromThread(self, function: Callable[[], object]) -> None:
        self.callLater(0, function)


class EndingTests(SynchronousTestCase):
    """A process that cannot go on says why, once, and ends."""

    def setUp(self) -> None:
        self.clock = StoppableClock()
        self.terminal = io.StringIO()
        self.last: list[object] = []
        self.ending = Ending(self.clock, self.terminal, self.last.append)
        self.logged: list[str] = []
        observer = lambda event: self.logged.append(str(event.get("reason")))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_firstReasonOnly(self) -> None:
        """What follows from the first failure is neither told nor a traceback."""
        self.ending.giveUp(ConfigError("first"))
        self.ending.giveUp(ConfigError("second"))
        self.clock.advance(1)
        self.assertEqual(self.terminal.getvalue(), "tsrt: first\n")
        self.assertEqual(self.last, [exitWithFailure])
        self.assertFalse(self.clock.running)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stoppedAlready(self) -> None:
        """A signal may have stopped the reactor in the meantime."""
        self.ending.giveUp(ConfigError("first"))
        self.clock.stop()
        self.clock.advance(1)

    def test_log(self) -> None:
        """Without a terminal the log holds the sentence, but not twice."""
        Ending(self.clock, None, self.last.append).giveUp(ConfigError("one"))
        Ending(self.clock, None, self.last.append).giveUp(ConfigError("two"), True)
        self.assertEqual(self.logged, ["one"])


class FixedEndpoint:
    """Answers each C{listen} with what it was given."""

    def __init__(self, answer: Deferred[IListeningPort]) -> None:
        self.answer = answer

    def listen(self, factory: object) -> Deferred[IListeningPort]:
        """Give the answer."""
        return self.answer


class VitalEndpointTests(SynchronousTestCase):
    """A port that was asked for on the command line and cannot be had."""

    def listen(self, answer: Deferred[object]) -> Deferred[object]:
        """Listen at an endpoint that gives C{answer}."""
        self.errors: list[TSRTError] = []
        vital = VitalEndpoint(
            FixedEndpoint(answer),  # type: ignore[arg-type]  # listens to nothing
            "--forward x",
            self.errors.append,
        )
        return vital.listen(Factory())  # type: ignore[return-value]  # no real port

    def test_success(self) -> None:
        """The port is passed on."""
        port = object()
        self.assertIs(self.successResultOf(self.listen(succeed(port))), port)
        self.assertEqual(self.errors, [])

    def test_sentences(self) -> None:
        """Failures are sentences that begin with the option."""
        for error, text in (
            (
                CannotListenError("127.0.0.1", 80, OSError(98, "it is taken")),
                "--forward x: port 80 cannot be had: it is taken",
            ),
            (
                CannotListenError("any", 80, "port 80 is in use"),
                "--forward x: port 80 cannot be had: port 80 is in use",
            ),
            (PortInUse("taken", advice="Wait."), "--forward x: taken. Wait."),
            (ValueError(), "--forward x: ValueError"),
        ):
            self.assertNoResult(self.listen(fail(error)))
            self.assertEqual([str(e) for e in self.errors], [text])

    def test_cancel(self) -> None:
        """A service that stops meanwhile is no failure."""
        answer: Deferred[object] = Deferred()
        listening = self.listen(answer)
        listening.cancel()
        self.failureResultOf(listening)
        self.assertEqual(self.errors, [])


class HangUpTests(SynchronousTestCase):
    """SIGHUP stops the reactor in good order."""

    if platform.isWindows():
        skip = "there is no SIGHUP here"

    def setUp(self) -> None:
        self.clock = StoppableClock()
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.service = HangUpService(self.clock)

    def test_stops(self) -> None:
        """The reactor stops at its next turn, not inside of the handler."""
        self.service.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertTrue(self.clock.running)
        self.clock.advance(0)
        self.assertFalse(self.clock.running)
        self.service.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_DFL)

    def test_twice(self) -> None:
        """A second one changes nothing."""
        self.service.startService()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        self.clock.advance(0)
        self.assertFalse(self.clock.running)

    def test_ignored(self) -> None:
        """C{nohup} keeps its meaning."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.service.startService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
        self.service.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
