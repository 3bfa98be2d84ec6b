"""
Decompressing what comes from the network, with a bound on everything.

Reference: RFC 8878.
"""

from __future__ import annotations

import sys

from tsrt.errors import WireError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["WINDOW_LOG", "decompress", "zstd"]

WINDOW_LOG = 26
"""The largest window of a frame, as a power of two: 64 MiB."""


def decompress(data: bytes, limit: int) -> bytes:
    """
    Decompress exactly one frame.

    Memory stays bounded: decompression stops at the limit, however much more
    there would be.

    @param limit: the most bytes that the content may have.
    @raise WireError: when it is no frame, not all of one, more than one, or
        one with too much in it.
    """
    decompressor = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    )
    try:
        content = decompressor.decompress(data, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise WireError(f"a map frame is not zstd: {error}") from None
    if len(content) > limit:
        raise WireError(f"a map frame decompresses to more than {limit} bytes")
    if not decompressor.eof:
        raise WireError("a map frame is cut short")
    if decompressor.unused_data:
        raise WireError("a map frame has something behind its end")
    return content
