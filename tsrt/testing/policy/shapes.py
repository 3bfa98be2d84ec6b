"""Takes plain values apart; every complaint names its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tsrt.errors import WireError
from tsrt.testing.policy.errors import Path
from tsrt.testing.policy.hujson import Document

T = TypeVar("T")


class Shapes:
    """
    Checks that values of one document have the shapes they must have.

    The methods raise L{tsrt.testing.policy.PolicyError} when they have not.
    Absent values count as empty.

    @ivar document: the document.
    """

    def __init__(self, document: Document) -> None:
        """
        @param document: the document that the values are from.
        """
        self.document = document
        self.fail = document.error

    def mapping(self, value: object, path: Path) -> dict[str, object]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.fail(path, "an object was expected")
        return value

    def items(self, value: object, path: Path) -> list[tuple[Path, object]]:
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fail(path, "a list was expected")
        return [((*path, index), item) for index, item in enumerate(value)]

    def text(self, value: object, path: Path) -> str:
        if not isinstance(value, str):
            raise self.fail(path, "a string was expected")
        return value

    def texts(self, value: object, path: Path) -> list[tuple[Path, str]]:
        return [(at, self.text(item, at)) for at, item in self.items(value, path)]

    def members(
        self,
        value: object,
        path: Path,
        known: tuple[str, ...],
        refused: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """
        An object with known members only.

        Case does not matter in their names, as in every reader of policies.
        """
        canonical = {name.lower(): name for name in known}
        members: dict[str, object] = {}
        for written, item in self.mapping(value, path).items():
            at = (*path, written)
            name = canonical.get(written.lower())
            if name is None:
                meant = written.lower() in refused
                reason = "is not supported" if meant else "is unknown here"
                raise self.fail(at, f"{written!r} {reason}")
            if name in members:
                raise self.fail(at, f"{name!r} is given twice")
            members[name] = item
        return members

    def parsed(self, parse: Callable[[str], T], text: str, path: Path) -> T:
        try:
            return parse(text)
        except WireError as error:
            raise self.fail(path, str(error)) from None
