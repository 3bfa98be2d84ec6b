"""The way in which the server says no: a status and a text."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is answered with an error status and a text."""

    def __init__(
        self, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """
        @param status: the HTTP status code.
        @param message: the body of the answer, for a person to read.
        @param headers: further headers.
        """
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return str(self).encode("utf-8") + b"\n"
