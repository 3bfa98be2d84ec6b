"""
How much new data to send at once: Nagle and silly window avoidance.

Reference: RFC 9293 sections 3.7.4 and 3.8.6.2.1, RFC 896.
"""

from __future__ import annotations


def sizeOfNewData(
    queued: int, usable: int, count: int, mss: int, largest: int, prompt: bool
) -> int:
    """
    Whole segments, and perhaps a small one at the end.

    A small segment waits while another small one is in flight (Nagle, in the
    variant of Minshall, which does not hold back the tail of a larger piece).
    The peer's window alone makes a segment small only if it is half of the
    largest that there ever was.

    @param queued: bytes that wait to be sent for the first time.
    @param usable: bytes that the windows admit; negative if they shrank.
    @param count: most full segments to send.
    @param mss: bytes in a full segment.
    @param largest: the largest window that the peer ever offered.
    @param prompt: whether a small segment need not wait.
    @return: bytes to send; 0 to wait.
    """
    if queued <= usable and queued <= count * mss:
        return queued if prompt else queued - queued % mss
    size = min(queued, usable, count * mss)
    if size >= mss:
        return size - size % mss
    if size > 0 and size * 2 >= largest:
        return size
    return 0
