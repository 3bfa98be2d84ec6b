"""Packet filter rules as control sends them."""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType, field

from tsrt.tailcfg.naming import jsonName


class PortRange(Struct, rename=jsonName):
    """
    Ports from first to last, both included.

    What is absent is zero, as in Go: a destination without ports is none.
    """

    first: int = 0
    last: int = 0


class NetPortRange(Struct, rename=jsonName):
    """
    A destination of a rule.

    C{bits} is a form that is no longer used; a filter with it is rejected.
    """

    ip: str = ""
    ports: PortRange = field(default_factory=PortRange)
    bits: int | UnsetType | None = UNSET


class CapGrant(Struct, rename=jsonName, omit_defaults=True):
    """
    Capabilities that sources get towards some destinations.

    @ivar caps: names alone, an older form of C{capMap}.
    @ivar capMap: names with their values; C{None} for a name without values.
    """

    dsts: list[str] | None = None
    caps: list[str] | None = None
    capMap: dict[str, list[Raw] | None] | None = None


class FilterRule(Struct, rename=jsonName, omit_defaults=True):
    """
    Who may send what where (C{dstPorts}), or do what there (C{capGrant}).

    @ivar srcIPs: C{*}, addresses, prefixes, ranges C{a-b}, and C{cap:name}.
    @ivar ipProto: protocol numbers; absent or empty means TCP, UDP and ICMP.

    C{srcBits} is a form that is no longer used; a filter with it is rejected.
    """

    srcIPs: list[str] | None = None
    srcBits: list[int] | None = None
    dstPorts: list[NetPortRange] | None = None
    ipProto: list[int] | None = None
    capGrant: list[CapGrant] | None = None
