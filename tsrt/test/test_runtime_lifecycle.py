"""Tests for L{tsrt.runtime.lifecycle} and L{tsrt.runtime.status}."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import AuthKeyInvalid, NotRunning
from tsrt.runtime.lifecycle import LifecycleCore, makeLifecycle
from tsrt.runtime.status import (
    Health,
    HealthWarning,
    NodeState,
    NodeStatus,
    StatusPublisher,
)


class LifecycleTests(SynchronousTestCase):
    """What happens to a node shows as the states that users know."""

    def setUp(self) -> None:
        self.publisher = StatusPublisher()
        self.core = LifecycleCore(self.publisher)
        self.machine = makeLifecycle(self.core)

    def wait(self) -> Deferred[NodeStatus]:
        waiter: Deferred[NodeStatus] = Deferred()
        self.core.waiters.append(waiter)
        return waiter

    @property
    def state(self) -> NodeState:
        return self.publisher.status.state

    def test_straightAway(self) -> None:
        """With a good key the node goes from Starting to Running."""
        self.machine.starting()
        waiter = self.wait()
        self.assertIs(self.state, NodeState.STARTING)
        self.machine.registered()
        self.assertIs(self.state, NodeState.STARTING)
        self.machine.ready()
        self.assertIs(self.state, NodeState.RUNNING)
        self.assertTrue(self.successResultOf(waiter).isRunning)

    def test_loginURLShownWhileNeeded(self) -> None:
        """The login URL is in the status until the node is let in."""
        self.machine.starting()
        self.machine.loginRequired("https://x/1")
        self.assertIs(self.state, NodeState.NEEDS_LOGIN)
        self.assertEqual(self.publisher.status.loginURL, "https://x/1")
        self.machine.loginRequired("https://x/2")
        self.assertEqual(self.publisher.status.loginURL, "https://x/2")
        self.machine.registered()
        self.assertIs(self.state, NodeState.STARTING)
        self.assertEqual(self.publisher.status.loginURL, "")

    def test_T_loginURL_duringASession(self) -> None:
        """A login that a running node needs is shown, too."""
        self.machine.starting()
        self.machine.ready()
        self.machine.loginRequired("https://x/again")
        self.assertIs(self.state, NodeState.NEEDS_LOGIN)

    def test_approval(self) -> None:
        """Waiting for an administrator lasts until there is a netmap."""
        self.machine.starting()
        self.machine.approvalRequired()
        self.machine.registered()
        self.assertIs(self.state, NodeState.NEEDS_MACHINE_AUTH)
        self.machine.ready()
        self.assertIs(self.state, NodeState.RUNNING)

    def test_failureEndsTheWait(self) -> None:
        """A permanent error reaches those who wait, and stays visible."""
        self.machine.starting()
        waiter = self.wait()
        error = AuthKeyInvalid("no such key")
        self.machine.failed(error)
        self.assertIs(self.failureResultOf(waiter, AuthKeyInvalid).value, error)
        self.machine.ready()
        self.assertIs(self.state, NodeState.STOPPED)
        self.machine.stopping()
        self.machine.stopped()
        self.assertIs(self.publisher.status.error, error)

    def test_stopEndsTheWait(self) -> None:
        """Those who wait for a node that is stopped are told."""
        self.machine.starting()
        waiter = self.wait()
        self.machine.stopping()
        self.failureResultOf(waiter, NotRunning)
        self.machine.stopped()
        self.assertIs(self.state, NodeState.STOPPED)

    def test_startAgain(self) -> None:
        """A stopped node starts afresh, without its old error."""
        self.machine.starting()
        self.machine.failed(AuthKeyInvalid("no"))
        self.machine.stopping()
        self.machine.stopped()
        self.machine.starting()
        self.assertIs(self.state, NodeState.STARTING)
        self.assertIsNone(self.publisher.status.error)

    def test_everyInputInEveryState(self) -> None:
        """No order of events is an error."""
        inputs = {
            "starting": (),
            "loginRequired": ("u",),
            "approvalRequired": (),
            "registered": (),
            "ready": (),
            "failed": (AuthKeyInvalid("no"),),
            "stopping": (),
            "stopped": (),
        }
        paths = [
            [],
            ["starting"],
            ["starting", "loginRequired"],
            ["starting", "approvalRequired"],
            ["starting", "ready"],
            ["starting", "failed"],
            ["starting", "stopping"],
        ]
        for path in paths:
            for last, arguments in inputs.items():
                machine = makeLifecycle(LifecycleCore(StatusPublisher()))
                for name in path:
                    getattr(machine, name)(*inputs[name])
                self.assertIsNone(getattr(machine, last)(*arguments))


class StatusPublisherTests(SynchronousTestCase):
    """L{StatusPublisher} tells watchers of changes."""

    def test_watch(self) -> None:
        """A watcher hears the present status and each new one, once."""
        publisher = StatusPublisher()
        heard: list[int] = []
        stop = publisher.watch(lambda status: heard.append(status.peerCount))
        publisher.update(peerCount=1)
        publisher.update(peerCount=1)
        publisher.update(peerCount=2)
        stop()
        stop()
        publisher.update(peerCount=3)
        self.assertEqual(heard, [0, 1, 2])

    def test_brokenWatcher(self) -> None:
        """A watcher that raises is logged and harms nobody."""
        publisher = StatusPublisher()
        heard: list[NodeStatus] = []

        def broken(status: NodeStatus) -> None:
            raise ValueError("mine")

        publisher.watch(broken)
        publisher.watch(heard.append)
        publisher.update(peerCount=1)
        self.assertEqual(len(heard), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)


class HealthTests(SynchronousTestCase):
    """L{Health} gathers what is wrong."""

    def test_texts(self) -> None:
        """Texts come and go by their keys; nothing is told twice."""
        told: list[tuple[str, ...]] = []
        health = Health(lambda found: told.append(tuple(w.text for w in found)))
        health.set("b", "two")
        health.set("a", "one")
        health.set("a", "one")
        health.set("b", None)
        health.set("b", "")
        self.assertEqual(told, [("two",), ("one", "two"), ("one",)])

    def test_replace(self) -> None:
        """All texts of one origin are replaced at once."""
        told: list[tuple[str, ...]] = []
        health = Health(lambda found: told.append(tuple(w.text for w in found)))
        health.set("other", "stays")
        health.replace("control-", ["x", "y"])
        health.replace("control-", ["z"])
        self.assertEqual(told[-1], ("z", "stays"))

    def test_codes(self) -> None:
        """Each has a code, Tailscale's own where there is one."""
        told: list[tuple[HealthWarning, ...]] = []
        health = Health(told.append)
        for key in ("relay-900", "relay-problem-900", "control-map", "server-3", "odd"):
            health.set(key, "wrong")
        self.assertEqual(
            [warning.code for warning in told[-1]],
            [
                "not-in-map-poll",
                "odd",
                "no-derp-connection",
                "derp-region-error",
                "control-health",
            ],
        )
