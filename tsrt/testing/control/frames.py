"""Writes map responses as the frames of a map stream."""

from __future__ import annotations

import sys

from tsrt.tailcfg import MapResponse, encode
from tsrt.wire.controlframe import encodeMapFrame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSIONS = ("", "zstd")
"""The values of C{Compress} that are understood."""

_LEVEL = 1


def encodeFrame(response: MapResponse, compression: str) -> bytes:
    """
    Write one frame.

    @param response: what it says.
    @param compression: one of L{COMPRESSIONS}.
    """
    content = encode(response)
    if compression:
        content = zstd.compress(content, level=_LEVEL)
    return encodeMapFrame(content)


KEEP_ALIVE = {
    compression: encodeFrame(MapResponse(keepAlive=True), compression)
    for compression in COMPRESSIONS
}
"""The frame that only says that the server is still there."""
