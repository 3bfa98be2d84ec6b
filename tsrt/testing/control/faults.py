"""Failures on demand, to see how clients take them."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from tsrt.testing.control.refusal import Refusal


@define(eq=False)
class Faults:
    """
    Failures that a test asked for.
    """

    _planned: dict[str, list[Refusal]] = field(factory=dict)

    def plan(
        self,
        path: str,
        status: int,
        message: str = "failed on demand",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """
        Let the next requests for a path fail.

        @param path: such as C{/machine/register}.
        @param status: the status code of the answers.
        @param message: their body.
        @param headers: their further headers, such as C{Retry-After}.
        @param times: how many requests fail.
        """
        refusals = self._planned.setdefault(path, [])
        refusals.extend(Refusal(status, message, headers) for _ in range(times))

    def check(self, path: str) -> None:
        """
        Fail if it was asked for.

        @raise Refusal: the failure.
        """
        planned = self._planned.get(path)
        if planned:
            raise planned.pop(0)
