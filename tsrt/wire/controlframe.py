"""
The framing of the control connection, from the outside in.

1. Messages with a type and a length: the server's handshake message, its error
   message, and the sealed records that follow (L{RecordSplitter}).
2. In the stream of what the records hold: an optional early payload in front
   of HTTP/2 (L{EarlyPayload}).
3. In the body of a map response: frames with a B{little-endian} length
   (L{MapFrameSplitter}); all other integers are big-endian.
"""

from __future__ import annotations

import json
import struct

from tsrt.errors import WireError
from tsrt.keys import ChallengePublic

TYPE_INITIATION = 1
TYPE_RESPONSE = 2
TYPE_ERROR = 3
TYPE_RECORD = 4

MAX_FRAME = 4096
"""Bytes of the largest record, its header counted."""

HEADER_LENGTH = 3
"""Bytes of the header of a record."""

MAX_CIPHERTEXT = MAX_FRAME - HEADER_LENGTH
"""Bytes of the largest sealed content of a record."""

MAX_PLAINTEXT = MAX_CIPHERTEXT - 16
"""Bytes of the largest content of a record."""

MAX_NONCE = (1 << 64) - 2
"""The last counter with which a record may be sealed."""

EARLY_MAGIC = b"\xff\xff\xffTS"
"""What an early payload begins with; no HTTP/2 frame does."""

EARLY_HEADER_LENGTH = 9
"""Bytes that decide whether there is an early payload."""

MAX_EARLY_PAYLOAD = 10 << 20
"""Bytes of the largest JSON document of an early payload."""

MAX_MAP_FRAME = 256 << 20
"""Bytes of the largest frame of a map response."""

_RECORD_HEADER = struct.Struct("!BH")
_EARLY_LENGTH = struct.Struct("!I")
_MAP_LENGTH = struct.Struct("<I")


class RecordSplitter:
    """
    Cuts the stream from the other side into messages.

    Which types are allowed when is for the caller to judge.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Start at the beginning of a message."""
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        Take the next bytes of the stream.

        @return: the type and the payload of each message that is now complete.
        @raise WireError: when a message is longer than allowed; the stream is
            then beyond rescue, and so are the messages of this call.
        """
        buffer = self._buffer + data if self._buffer else data
        messages = []
        at = 0
        size = len(buffer)
        while size - at >= HEADER_LENGTH:
            kind, length = _RECORD_HEADER.unpack_from(buffer, at)
            if length > MAX_CIPHERTEXT:
                raise WireError(f"a control message has {length} bytes")
            end = at + HEADER_LENGTH + length
            if end > size:
                break
            messages.append((kind, buffer[at + HEADER_LENGTH : end]))
            at = end
        self._buffer = buffer[at:]
        return messages


def encodeRecord(ciphertext: bytes) -> bytes:
    """
    A whole record.

    @param ciphertext: at most L{MAX_CIPHERTEXT} bytes.
    """
    return _RECORD_HEADER.pack(TYPE_RECORD, len(ciphertext)) + ciphertext


def encodeRecords(ciphertexts: list[bytes]) -> bytes:
    """Whole records, one after the other."""
    return b"".join(map(encodeRecord, ciphertexts))


def splitPlaintext(data: bytes) -> list[bytes]:
    """C{data} in pieces that fit into one record each."""
    return [data[at : at + MAX_PLAINTEXT] for at in range(0, len(data), MAX_PLAINTEXT)]


def encodeError(text: str) -> bytes:
    """The message with which a server refuses a handshake; cut if too long."""
    payload = text.encode("utf-8")[:MAX_CIPHERTEXT]
    return _RECORD_HEADER.pack(TYPE_ERROR, len(payload)) + payload


def parseError(payload: bytes) -> str:
    """What the server says; it is not authenticated."""
    return payload.decode("utf-8", "replace")


class EarlyPayload:
    """
    Takes the early payload, if there is one, off the front of a stream.

    Feed it until it gives something back; from then on L{done} is true and
    the stream is all HTTP/2.
    """

    __slots__ = ("_buffer", "challenge", "done")

    done: bool
    """Whether the front of the stream has been seen to its end."""

    challenge: ChallengePublic | None
    """The server's challenge, if it sent one."""

    def __init__(self) -> None:
        """Start at the beginning of the stream."""
        self._buffer = bytearray()
        self.done = False
        self.challenge = None

    def feed(self, data: bytes) -> bytes:
        """
        Take the next bytes of the stream.

        @return: bytes that belong to HTTP/2.
        @raise WireError: if the early payload is too long or not what it must
            be.
        """
        if self.done:
            return data
        self._buffer += data
        front = bytes(self._buffer[: len(EARLY_MAGIC)])
        if not EARLY_MAGIC.startswith(front):
            return self._finish(0)
        if len(self._buffer) < EARLY_HEADER_LENGTH:
            return b""
        (length,) = _EARLY_LENGTH.unpack_from(self._buffer, len(EARLY_MAGIC))
        if length > MAX_EARLY_PAYLOAD:
            raise WireError(f"an early payload has {length} bytes")
        end = EARLY_HEADER_LENGTH + length
        if len(self._buffer) < end:
            return b""
        self.challenge = _parseChallenge(self._buffer[EARLY_HEADER_LENGTH:end])
        return self._finish(end)

    def _finish(self, end: int) -> bytes:
        """Hand over what follows C{end}."""
        rest = bytes(self._buffer[end:])
        self._buffer.clear()
        self.done = True
        return rest


def _parseChallenge(data: bytearray) -> ChallengePublic | None:
    """The challenge in the JSON document of an early payload."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise WireError("an early payload is not JSON") from None
    if not isinstance(document, dict):
        raise WireError("an early payload is not a JSON object")
    text = document.get("nodeKeyChallenge")
    if text is None:
        return None
    if not isinstance(text, str):
        raise WireError("nodeKeyChallenge is not a string")
    return ChallengePublic.parse(text)


def encodeEarlyPayload(challenge: ChallengePublic) -> bytes:
    """The early payload that a server sends in front of HTTP/2."""
    document = b'{"nodeKeyChallenge":"%s"}' % challenge.text().encode("ascii")
    return EARLY_MAGIC + _EARLY_LENGTH.pack(len(document)) + document


class MapFrameSplitter:
    """Cuts the body of a map response into frames."""

    __slots__ = ("_chunks", "_held", "_limit", "_wanted")

    def __init__(self, limit: int = MAX_MAP_FRAME) -> None:
        """
        @param limit: bytes of the largest frame.
        """
        self._limit = limit
        self._chunks: list[bytes] = []
        self._held = 0
        # How many bytes to have before it is worth looking: map frames come
        # in many small pieces, and joining at each would take quadratic time.
        self._wanted = _MAP_LENGTH.size

    def feed(self, data: bytes) -> list[bytes]:
        """
        Take the next bytes of the body.

        @return: the content of each frame that is now complete.
        @raise WireError: when a frame is longer than allowed.
        """
        self._chunks.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        buffer = b"".join(self._chunks)
        frames = []
        at = 0
        while True:
            self._wanted = _MAP_LENGTH.size
            if len(buffer) - at < self._wanted:
                break
            (length,) = _MAP_LENGTH.unpack_from(buffer, at)
            if length > self._limit:
                raise WireError(f"a map frame has {length} bytes")
            self._wanted += length
            if len(buffer) - at < self._wanted:
                break
            frames.append(buffer[at + _MAP_LENGTH.size : at + self._wanted])
            at += self._wanted
        rest = buffer[at:]
        self._chunks = [rest]
        self._held = len(rest)
        return frames


def encodeMapFrame(content: bytes) -> bytes:
    """A whole frame of a map response."""
    return _MAP_LENGTH.pack(len(content)) + content
