"""The one error of the policy compiler."""

from __future__ import annotations

from tsrt.errors import ConfigError

Path = tuple[str | int, ...]
"""The place of a value in a document: keys and list indices, outermost first."""


def pathText(path: Path) -> str:
    """
    Write a path the way people write it: C{acls[2].dst[0]}.

    @param path: keys and list indices, outermost first.
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif text:
            text += f".{step}"
        else:
            text = step
    return text


class PolicyError(ConfigError):
    """A policy document does not say something that can be enforced."""

    advice = "Correct the policy; the one in force before stays in force."

    def __init__(self, message: str, *, line: int = 0, path: Path = ()) -> None:
        """
        @param message: what is wrong.
        @param line: the line of the document, counted from 1; 0 if unknown.
        @param path: the place in the document.
        """
        where = []
        if line:
            where.append(f"line {line}")
        if path:
            where.append(pathText(path))
        prefix = ", ".join(where)
        super().__init__(f"{prefix}: {message}" if prefix else message)
        self.line = line
        self.path = path
