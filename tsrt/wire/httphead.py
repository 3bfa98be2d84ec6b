"""
The head of an HTTP/1.1 response, taken byte by byte from a connection that
stops being HTTP right behind it.

What follows a C{101}, or the C{200} that answers a C{CONNECT}, in the same
segment already belongs to the next protocol, so that an HTTP client library is
of no use.
"""

from __future__ import annotations

from attrs import frozen

from tsrt.errors import WireError

LARGEST_HEAD = 16 * 1024
"""Bytes of status line and headers together."""


@frozen
class ResponseHead:
    """
    Status line and headers of a response.

    @ivar status: e.g. 101.
    @ivar reason: the words behind the status; may be empty.
    @ivar headers: names in lower case with their values, in order.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        """The first value of the header C{name} (in lower case)."""
        for known, value in self.headers:
            if known == name:
                return value
        return None

    @property
    def statusText(self) -> str:
        """Status and reason, fit for a message."""
        return f"{self.status} {self.reason}".rstrip()


class ResponseHeadParser:
    """Collects bytes until the blank line that ends the head."""

    def __init__(self, limit: int = LARGEST_HEAD) -> None:
        """
        @param limit: the most bytes that the head may have.
        """
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """
        Take bytes as they come in.

        @return: C{None} while the head is not whole; then the head, and the
            bytes behind it.
        @raise WireError: when it is no HTTP response, or too long a one.
        """
        start = max(0, len(self._buffer) - 3)
        self._buffer += data
        if not b"HTTP/1.".startswith(self._buffer[:7]):
            raise WireError("the answer is not HTTP/1")
        end = self._buffer.find(b"\r\n\r\n", start)
        if end > self._limit or (end < 0 and len(self._buffer) > self._limit):
            raise WireError(f"the head of the answer exceeds {self._limit} bytes")
        if end < 0:
            return None
        head = bytes(self._buffer[:end])
        surplus = bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        return _parse(head), surplus


def _parse(head: bytes) -> ResponseHead:
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise WireError("the answer is not HTTP/1")
    if len(code) != 3 or not (code.isascii() and code.isdigit()) or code < "100":
        raise WireError("the answer has no HTTP status")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise WireError("the answer has a malformed header")
        headers.append((name.lower(), value.strip()))
    return ResponseHead(int(code), reason.strip(), tuple(headers))
