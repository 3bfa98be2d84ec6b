"""
How attribute names become the names of control documents.

The documents name things as Go does: C{NodeKey}, C{DERPMap}, C{StableID}.
Attributes here are camelCase with the same abbreviations.
"""

from __future__ import annotations

import re

# Abbreviations that stand at the beginning of an attribute in lower case.
_ABBREVIATIONS = frozenset(
    [
        "derp",
        "dns",
        "id",
        "ip",
        "ipn",
        "ips",
        "nl",
        "os",
        "ssh",
        "stun",
        "tka",
        "tpm",
        "upnp",
        "pmp",
        "pcp",
        "url",
    ]
)

_HEAD = re.compile(r"[a-z]+")


def jsonName(attribute: str) -> str:
    """
    The document's name for C{attribute}.

    >>> jsonName("nodeKey"), jsonName("derpMap"), jsonName("stableID")
    ('NodeKey', 'DERPMap', 'StableID')
    """
    match = _HEAD.match(attribute)
    head = match.group() if match else ""
    if head in _ABBREVIATIONS:
        first = "UPnP" if head == "upnp" else "IPs" if head == "ips" else head.upper()
    else:
        first = head[:1].upper() + head[1:]
    return first + attribute[len(head) :]
