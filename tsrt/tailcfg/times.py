"""
Times as control documents write them (RFC 3339, with Go's zero time).

Documents write up to nine digits of a second; Python keeps six of them.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from tsrt.errors import WireError

ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero time, which stands for "no time"."""

_decoder = msgspec.json.Decoder(datetime)


def present(when: datetime | msgspec.UnsetType | None) -> datetime | None:
    """A time, or C{None} where the document means that there is none."""
    if when is None or isinstance(when, msgspec.UnsetType) or when.year <= 1:
        return None
    if when.tzinfo is None:
        return when.replace(tzinfo=UTC)
    return when


def parseTime(text: str) -> datetime | None:
    """
    Read a time.

    @return: the time, or C{None} for Go's zero time.
    @raise WireError: this is no time of RFC 3339.
    """
    try:
        return present(_decoder.decode(msgspec.json.encode(text)))
    except (msgspec.MsgspecError, ValueError):
        raise WireError(f"{text!r} is no time") from None


def formatTime(when: datetime | None) -> str:
    """
    Write a time; C{None} becomes Go's zero time.

    A time without a zone counts as UTC.
    """
    text = (present(when) or ZERO_TIME).astimezone(UTC).isoformat()
    return text.removesuffix("+00:00") + "Z"
