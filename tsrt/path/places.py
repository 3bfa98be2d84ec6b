"""Where a datagram comes from or goes to."""

from __future__ import annotations

from typing import NamedTuple

from tsrt.addresses import AddrPort


class Relayed(NamedTuple):
    """A peer by way of a relay (DERP)."""

    region: int
    peer: bytes
    """Its raw node key."""


class Via(NamedTuple):
    """A peer by way of a peer relay, which knows it by a number (Geneve)."""

    address: AddrPort
    vni: int

    def text(self) -> str:
        """C{192.0.2.1:7777:vni:5}, as the field's tools write it."""
        return f"{self.address.text()}:vni:{self.vni}"


Direct = AddrPort | Via
"""Reached by our own socket."""

Place = AddrPort | Via | Relayed
"""Reached somehow."""


def describe(place: Direct) -> str:
    """
    The way by a place, in words: C{direct 192.0.2.1:41641} or C{peer-relay
    192.0.2.1:7777:vni:5}.
    """
    return f"{'peer-relay' if isinstance(place, Via) else 'direct'} {place.text()}"
