"""Waiting for a node to come up, for as long as makes sense."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from tsrt.errors import NeedsApproval, NeedsLogin, StartupTimeout, TSRTError
from tsrt.runtime.devicestate import DeviceState, Phase
from tsrt.runtime.lifecycle import LifecycleCore
from tsrt.runtime.status import NodeState, NodeStatus

_FOR_A_PERSON = (NodeState.NEEDS_LOGIN, NodeState.NEEDS_MACHINE_AUTH)


class UpWaiter:
    """
    One wait for the node, with a limit.

    @ivar result: fires with the status, or fails with what kept the node from
        coming up; cancelling it stops the wait.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        core: LifecycleCore,
        seconds: float | None,
        isPatient: bool,
        describeSteps: Callable[[], str],
    ) -> None:
        """
        @param seconds: the limit; none if it is C{None} or 0.
        @param isPatient: whether the limit starts anew while a person has to
            act.
        @param describeSteps: what was tried so far, for the error.
        """
        self._reactor = reactor
        self._core = core
        self._seconds = seconds
        self._isPatient = isPatient
        self._describeSteps = describeSteps
        self._call: IDelayedCall | None = None
        self.result: Deferred[NodeStatus] = Deferred(core.waiters.remove)
        core.waiters.append(self.result)
        self.result.addBoth(self._done)
        self._arm()

    def _arm(self) -> None:
        if self._seconds:
            self._call = self._reactor.callLater(self._seconds, self._expired)

    def _done(self, result: NodeStatus | Failure) -> NodeStatus | Failure:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        return result

    def _expired(self) -> None:
        self._call = None
        if self._isPatient and self._core.publisher.status.state in _FOR_A_PERSON:
            self._arm()
            return
        self._core.waiters.remove(self.result)
        self.result.errback(self._reason())

    def _reason(self) -> TSRTError:
        """What to say when the node is not up in time."""
        status, seconds = self._core.publisher.status, self._seconds or 0
        if status.state is NodeState.NEEDS_LOGIN:
            return NeedsLogin(
                f"nobody opened {status.loginURL} within {seconds:g} seconds",
                url=status.loginURL,
            )
        if status.state is NodeState.NEEDS_MACHINE_AUTH:
            return NeedsApproval(f"nobody approved this machine in {seconds:g} seconds")
        return StartupTimeout(
            f"the node was not up within {seconds:g} seconds; {self._describeSteps()}"
        )


def waitUntilRunning(
    reactor: IReactorTime,
    watch: Callable[[Callable[[NodeStatus], object]], Callable[[], None]],
    timeout: float | None,
) -> Deferred[None]:
    """
    Wait for a device that may come to run by itself.

    @param watch: calls back with the status at present, and with each new one.
    @param timeout: seconds; C{None} for no limit.
    @return: fires when it runs; fails with what only others can change, or with
        L{StartupTimeout}.  Cancelling stops the wait.
    """
    result: Deferred[None] = Deferred()

    def look(status: NodeStatus) -> None:
        state = DeviceState.of(status)
        if result.called:
            return
        if state.phase is Phase.RUNNING:
            result.callback(None)
        elif state.error is not None:
            result.errback(state.error)

    stop = watch(look)
    if timeout is not None and not result.called:
        late = reactor.callLater(
            timeout,
            lambda: result.errback(
                StartupTimeout(f"the node does not run after {timeout:g} seconds")
            ),
        )
        result.addBoth(_cancelled, late)

    def done(outcome: Failure | None) -> Failure | None:
        stop()
        return outcome

    return result.addBoth(done)


def _cancelled(outcome: Failure | None, late: IDelayedCall) -> Failure | None:
    if late.active():
        late.cancel()
    return outcome
