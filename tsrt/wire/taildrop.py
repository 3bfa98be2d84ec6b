"""
The block hashes by which a Taildrop transfer finds where to go on.

The receiver of a file that came only in part sends one JSON object for each
block of 64 KiB that it has; the sender compares them with its own file.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

from tsrt.errors import WireError

BLOCK_SIZE = 64 * 1024
"""Bytes of each block but the last."""

ALGORITHM = "sha256"

MAX_OBJECT = 1024
"""Bytes of the largest JSON object that is accepted."""

_CHECKSUM = re.compile(r"[0-9a-f]{64}")
_SPACE = b" \t\r\n"


class BlockHash(NamedTuple):
    """What is known of one block."""

    checksum: bytes
    """SHA-256 of the block, 32 bytes."""

    size: int
    """Bytes of the block; at most L{BLOCK_SIZE}."""

    @classmethod
    def of(cls, block: bytes) -> BlockHash:
        """The hash of a block."""
        return cls(hashlib.sha256(block).digest(), len(block))

    def encode(self) -> bytes:
        """The JSON object and a line feed."""
        return b'{"checksum":"%s","algo":"%s","size":%d}\n' % (
            self.checksum.hex().encode("ascii"),
            ALGORITHM.encode("ascii"),
            self.size,
        )

    @classmethod
    def decode(cls, data: bytes) -> BlockHash:
        """
        Read one JSON object.

        @raise WireError: if it is not one, or of another algorithm.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise WireError("a Taildrop block hash is not JSON") from None
        if not isinstance(document, dict):
            raise WireError("a Taildrop block hash is not a JSON object")
        checksum, size = document.get("checksum"), document.get("size")
        if document.get("algo") != ALGORITHM:
            raise WireError("a Taildrop block hash is of an unknown algorithm")
        if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
            raise WireError("the checksum of a Taildrop block is not 64 digits")
        if type(size) is not int or not 0 < size <= BLOCK_SIZE:
            raise WireError("the size of a Taildrop block is impossible")
        return cls(bytes.fromhex(checksum), size)


class BlockHashSplitter:
    """
    Cuts a stream of JSON objects that lie one behind the other.

    The objects hold no objects themselves, so that each ends at the first
    closing brace outside a string.
    """

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Start at the beginning of the stream."""
        self._buffer = b""

    def feed(self, data: bytes) -> list[BlockHash]:
        """
        Take the next bytes of the stream.

        @return: the hashes that are now complete.
        @raise WireError: if the stream holds anything else.
        """
        buffer = self._buffer + data
        hashes = []
        while True:
            end = buffer.find(b"}") + 1
            if not end:
                break
            hashes.append(BlockHash.decode(buffer[:end].strip(_SPACE)))
            buffer = buffer[end:].lstrip(_SPACE)
        if len(buffer) > MAX_OBJECT:
            raise WireError("a Taildrop block hash is too long")
        self._buffer = buffer
        return hashes

    def finish(self) -> None:
        """
        Say that the stream has ended.

        @raise WireError: if that was amid an object.
        """
        if self._buffer.strip(_SPACE):
            raise WireError("the Taildrop block hashes end amid an object")
