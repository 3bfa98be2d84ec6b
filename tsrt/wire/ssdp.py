"""
SSDP: finding UPnP devices on the local network, both roles.

A search and its answers are HTTP heads in one datagram each.

Reference: UPnP Device Architecture 1.1, section 1.3.
"""

from __future__ import annotations

from typing import NamedTuple

from tsrt.errors import WireError

PORT = 1900
GROUP = "239.255.255.250"
"""The IPv4 multicast address at which devices listen."""

ALL = "ssdp:all"
GATEWAY = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
"""The search target of gateways; those of version 2 answer to it too."""

MOST_DELAY = 2
"""Seconds by which devices may put off their answers, chosen by each at random,
so that not all answer at once."""

LARGEST_DATAGRAM = 4096
"""Bytes of a message that is read."""

_MOST_FIELDS = 64


class Search(NamedTuple):
    """Somebody looks for devices."""

    target: str
    """What for."""
    delay: int
    """Seconds by which the answer may be put off."""


class Found(NamedTuple):
    """A device answers."""

    target: str
    """What it is."""
    location: str
    """The URL of its description."""
    name: str
    """Its unique service name; the rest of the world knows it by that."""
    server: str
    """Its software, for people."""


def buildSearch(target: str = ALL, delay: int = MOST_DELAY) -> bytes:
    """
    Look for devices.

    @param target: for which: L{ALL}, L{GATEWAY}, or another URN.
    @param delay: seconds by which they may put off their answers.
    """
    return _message(
        "M-SEARCH * HTTP/1.1",
        HOST=f"{GROUP}:{PORT}",
        ST=target,
        MAN='"ssdp:discover"',
        MX=str(delay),
    )


def buildFound(found: Found) -> bytes:
    """Answer a search."""
    return _message(
        "HTTP/1.1 200 OK",
        **{"CACHE-CONTROL": "max-age=1800"},
        EXT="",
        LOCATION=found.location,
        SERVER=found.server,
        ST=found.target,
        USN=found.name,
    )


def parseSearch(datagram: bytes) -> Search:
    """
    Read a search, as a device does.

    @raise WireError: if it is none.
    """
    first, fields = _parse(datagram)
    if first.upper().split() != ["M-SEARCH", "*", "HTTP/1.1"]:
        raise WireError("an SSDP message is no search")
    if fields.get("man") != '"ssdp:discover"' or not fields.get("st"):
        raise WireError("an SSDP search does not say what it looks for")
    text = fields.get("mx", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 3):
        raise WireError(f"an SSDP search gives {text[:20]!r} as its delay")
    return Search(fields["st"], int(text))


def parseFound(datagram: bytes) -> Found:
    """
    Read the answer of a device.

    @raise WireError: if it is none, or does not say where its description is.
    """
    first, fields = _parse(datagram)
    words = first.split(None, 2)
    if (
        len(words) < 2
        or not words[0].upper().startswith("HTTP/1.")
        or words[1] != ("200")
    ):
        raise WireError("an SSDP message is no answer to a search")
    location = fields.get("location", "")
    if not location:
        raise WireError("an SSDP answer has no location")
    return Found(
        fields.get("st", ""),
        location,
        fields.get("usn", ""),
        fields.get("server", ""),
    )


def _message(first: str, **fields: str) -> bytes:
    lines = [first, *(f"{name}: {value}".rstrip() for name, value in fields.items())]
    return "\r\n".join((*lines, "", "")).encode("utf-8")


def _parse(datagram: bytes) -> tuple[str, dict[str, str]]:
    """The first line, and the fields by lower-case name, the first of each."""
    if len(datagram) > LARGEST_DATAGRAM:
        raise WireError(f"an SSDP message has more than {LARGEST_DATAGRAM} bytes")
    # Some devices write only line feeds, or leave out the empty line.
    lines = datagram.decode("latin-1").replace("\r\n", "\n").split("\n")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            break
        if len(fields) >= _MOST_FIELDS:
            raise WireError(f"an SSDP message has more than {_MOST_FIELDS} fields")
        name, colon, value = line.partition(":")
        if not colon:
            raise WireError("an SSDP message has a line that is no field")
        fields.setdefault(name.strip().lower(), value.strip())
    return lines[0], fields
