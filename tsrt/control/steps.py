"""
What was tried to reach the control server, and how it went.

When a node does not come up, this is what its user is told: a list of steps
with the result of each says at a glance whether it is DNS, a firewall, a proxy
or the login that is in the way.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime

DNS = "DNS"
TCP = "TCP"
TLS = "TLS"
KEY = "key"
NOISE = "Noise"
REGISTER = "register"
NETMAP = "first netmap"

ORDER = (DNS, TCP, TLS, KEY, NOISE, REGISTER, NETMAP)
"""The steps of the control client, in the order in which they happen."""

_LONGEST_DETAIL = 300


class StepResult(enum.Enum):
    """How a step went."""

    RUNNING = "still trying"
    OK = "ok"
    FAILED = "failed"
    WAITING = "waiting"
    """It works as far as it can: a person has to do something."""


@define
class Step:
    """
    One step.

    @ivar name: e.g. C{"DNS"}.
    @ivar result: how it went the last time.
    @ivar detail: what exactly happened; may be empty.
    @ivar duration: seconds that it took, or has taken so far.
    @ivar attempts: how often it was begun.
    @ivar problem: why it failed the last time, while it is tried again.
    """

    name: str
    result: StepResult
    detail: str = ""
    duration: float = 0.0
    attempts: int = 1
    problem: str = ""

    def describe(self) -> str:
        """The step as a few words."""
        text = f"{self.name}: {self.result.value}"
        if self.result is StepResult.OK:
            return f"{text} ({self.duration:.2f} s)"
        if self.attempts > 1:
            text += f" after {self.attempts} attempts"
        detail = self.problem or self.detail
        return f"{text}: {detail}" if detail else text


class StepLog:
    """
    The last result of each step.

    There is one entry for each name, so that it stays small however long a
    node has been trying.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        """
        @param reactor: tells the time that steps take.
        """
        self._reactor = reactor
        self._steps: dict[str, Step] = {}
        self._began: dict[str, float] = {}

    def newRound(self, names: Iterable[str] = ORDER) -> None:
        """
        A new attempt begins: results of these steps may be overwritten.

        Within one attempt several connections race, and the failure of one
        must not hide that another one got through.
        """
        for name in names:
            self._began.pop(name, None)

    def begin(self, name: str, detail: str = "") -> None:
        """Step C{name} begins."""
        known = self._steps.get(name)
        running = name in self._began
        if known is not None and running and known.result is StepResult.OK:
            return
        if not running:
            self._began[name] = self._reactor.seconds()
        problem = ""
        if known is not None:
            failed = known.result is StepResult.FAILED
            problem = known.detail if failed else known.problem
        self._steps[name] = Step(
            name,
            StepResult.RUNNING,
            detail[:_LONGEST_DETAIL],
            attempts=1 if known is None else known.attempts + (not running),
            problem=problem,
        )

    def _end(self, name: str, result: StepResult, detail: str) -> None:
        now = self._reactor.seconds()
        began = self._began.setdefault(name, now)
        known = self._steps.get(name)
        self._steps[name] = Step(
            name,
            result,
            detail[:_LONGEST_DETAIL],
            now - began,
            1 if known is None else known.attempts,
        )

    def succeeded(self, name: str, detail: str = "") -> None:
        """Step C{name} is done."""
        known = self._steps.get(name)
        if known is not None and known.result is StepResult.OK and name in self._began:
            return
        self._end(name, StepResult.OK, detail)

    def failed(self, name: str, detail: str) -> None:
        """Step C{name} failed, unless another try of it already succeeded."""
        known = self._steps.get(name)
        if known is not None and known.result is StepResult.OK and name in self._began:
            return
        self._end(name, StepResult.FAILED, detail)

    def waiting(self, name: str, detail: str) -> None:
        """Step C{name} waits for a person to do something."""
        self._end(name, StepResult.WAITING, detail)

    def result(self, name: str) -> StepResult | None:
        """How step C{name} went the last time, or C{None} if it never began."""
        step = self._steps.get(name)
        return None if step is None else step.result

    def steps(self) -> tuple[Step, ...]:
        """Copies of all steps so far, in the order in which they happen."""
        now = self._reactor.seconds()
        return tuple(
            evolve(step, duration=now - self._began.get(name, now))
            if step.result is StepResult.RUNNING
            else evolve(step)
            for name, step in self._sorted()
        )

    def _sorted(self) -> list[tuple[str, Step]]:
        position = {name: index for index, name in enumerate(ORDER)}
        return sorted(
            self._steps.items(), key=lambda item: position.get(item[0], len(position))
        )

    def describe(self) -> str:
        """All steps so far on one line."""
        steps = self.steps()
        if not steps:
            return "nothing was tried"
        return "; ".join(step.describe() for step in steps)
