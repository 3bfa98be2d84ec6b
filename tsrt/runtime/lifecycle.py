"""
The life of a node as a state machine.

What happens to the node goes in; states that users know come out, through the
L{StatusPublisher}, and the Deferreds of those who wait for the node fire.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, field
from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.errors import NotRunning, TSRTError
from tsrt.runtime.status import NodeState, NodeStatus, StatusPublisher

_log = Logger(namespace="tsrt.node")


class Lifecycle(Protocol):
    """What may happen to a node."""

    def starting(self) -> None:
        """The node was told to start."""

    def loginRequired(self, url: str) -> None:
        """A person has to open C{url}."""

    def approvalRequired(self) -> None:
        """An administrator has to approve the machine."""

    def registered(self) -> None:
        """Control let the node in."""

    def ready(self) -> None:
        """There is a netmap with addresses, and a relay to be reached by."""

    def failed(self, error: TSRTError) -> None:
        """The node cannot go on, and trying again will not help."""

    def stopping(self) -> None:
        """The node was told to stop."""

    def stopped(self) -> None:
        """Everything of the node has stopped."""


@define
class LifecycleCore:
    """What all states share."""

    publisher: StatusPublisher
    waiters: list[Deferred[NodeStatus]] = field(factory=list)

    def enter(self, state: NodeState, **changes: object) -> None:
        """Publish a state; a login URL lasts only as long as it is needed."""
        changes.setdefault("loginURL", "")
        self.publisher.update(state=state, **changes)

    def fire(self, result: NodeStatus | Failure) -> None:
        """Answer everybody who waits for the node."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.callback(result)


_builder = TypeMachineBuilder(Lifecycle, LifecycleCore)

_stopped = _builder.state("Stopped")
_starting = _builder.state("Starting")
_needsLogin = _builder.state("NeedsLogin")
_needsApproval = _builder.state("NeedsApproval")
_running = _builder.state("Running")
_failed = _builder.state("Failed")
_stopping = _builder.state("Stopping")

_alive = (_starting, _needsLogin, _needsApproval, _running)


@_stopped.upon(Lifecycle.starting).to(_starting)
def _begin(machine: Lifecycle, core: LifecycleCore) -> None:
    core.enter(NodeState.STARTING, error=None, warnings=(), expired=False)


@_failed.upon(Lifecycle.stopping).to(_stopping)
def _stopFailed(machine: Lifecycle, core: LifecycleCore) -> None:
    """The error stays in the status; it is what users want to see."""


for _state in _alive:

    @_state.upon(Lifecycle.loginRequired).to(_needsLogin)
    def _askLogin(machine: Lifecycle, core: LifecycleCore, url: str) -> None:
        core.enter(NodeState.NEEDS_LOGIN, loginURL=url)

    @_state.upon(Lifecycle.approvalRequired).to(_needsApproval)
    def _askApproval(machine: Lifecycle, core: LifecycleCore) -> None:
        core.enter(NodeState.NEEDS_MACHINE_AUTH)

    @_state.upon(Lifecycle.ready).to(_running)
    def _becomeRunning(machine: Lifecycle, core: LifecycleCore) -> None:
        core.enter(NodeState.RUNNING)
        status = core.publisher.status
        _log.info(
            "{name} is up at {addresses}",
            name=status.name or "the node",
            addresses=" and ".join(status.addresses),
        )
        core.fire(status)

    @_state.upon(Lifecycle.failed).to(_failed)
    def _fail(machine: Lifecycle, core: LifecycleCore, error: TSRTError) -> None:
        _log.error("the node stops: {reason}", reason=error.describe())
        core.enter(NodeState.STOPPED, error=error)
        core.fire(Failure(error))

    @_state.upon(Lifecycle.stopping).to(_stopping)
    def _stop(machine: Lifecycle, core: LifecycleCore) -> None:
        core.fire(Failure(NotRunning("the node was stopped before it was up")))

    @_state.upon(Lifecycle.starting).loop()
    def _already(machine: Lifecycle, core: LifecycleCore) -> None:
        """Starting twice changes nothing."""


@_needsLogin.upon(Lifecycle.registered).to(_starting)
def _loggedIn(machine: Lifecycle, core: LifecycleCore) -> None:
    core.enter(NodeState.STARTING)


@_needsApproval.upon(Lifecycle.registered).loop()
def _registeredUnapproved(machine: Lifecycle, core: LifecycleCore) -> None:
    """Being registered is not being approved; the netmap will tell."""


for _state in (_starting, _running):

    @_state.upon(Lifecycle.registered).loop()
    def _registeredAgain(machine: Lifecycle, core: LifecycleCore) -> None:
        """Nothing is new before the netmap comes."""


@_stopping.upon(Lifecycle.stopped).to(_stopped)
def _end(machine: Lifecycle, core: LifecycleCore) -> None:
    core.enter(NodeState.STOPPED, homeRegion="", warnings=())


for _state in (_stopped, _stopping, _failed):
    # News of parts that are just stopping, or that stopped, changes nothing.

    @_state.upon(Lifecycle.loginRequired).loop()
    def _lateLogin(machine: Lifecycle, core: LifecycleCore, url: str) -> None:
        """Too late."""

    @_state.upon(Lifecycle.approvalRequired).loop()
    def _lateApproval(machine: Lifecycle, core: LifecycleCore) -> None:
        """Too late."""

    @_state.upon(Lifecycle.registered).loop()
    def _lateRegistration(machine: Lifecycle, core: LifecycleCore) -> None:
        """Too late."""

    @_state.upon(Lifecycle.ready).loop()
    def _lateReady(machine: Lifecycle, core: LifecycleCore) -> None:
        """Too late."""

    @_state.upon(Lifecycle.failed).loop()
    def _lateFailure(machine: Lifecycle, core: LifecycleCore, error: TSRTError) -> None:
        """Too late."""


for _state in (_stopped, _stopping):

    @_state.upon(Lifecycle.stopping).loop()
    def _stopAgain(machine: Lifecycle, core: LifecycleCore) -> None:
        """Stopping twice changes nothing."""


for _state in (_stopping, _failed):

    @_state.upon(Lifecycle.starting).loop()
    def _startTooSoon(machine: Lifecycle, core: LifecycleCore) -> None:
        """A node starts again only after it has stopped."""


for _state in (_stopped, *_alive, _failed):

    @_state.upon(Lifecycle.stopped).loop()
    def _notStopping(machine: Lifecycle, core: LifecycleCore) -> None:
        """Nobody asked it to stop."""


makeLifecycle = _builder.build()
"""Make a machine in its first state, C{Stopped}, around a L{LifecycleCore}."""
