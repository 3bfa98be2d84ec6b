"""The tailnet's DNS configuration."""

from __future__ import annotations

from msgspec import Struct

from tsrt.tailcfg.naming import jsonName


class Resolver(Struct, rename=jsonName, omit_defaults=True):
    """A DNS server to ask."""

    addr: str = ""
    bootstrapResolution: list[str] | None = None
    useWithExitNode: bool = False


class DNSRecord(Struct, rename=jsonName, omit_defaults=True):
    """A name of the tailnet that is no node's."""

    name: str = ""
    type: str = ""
    value: str = ""


class DNSConfig(Struct, rename=jsonName, omit_defaults=True):
    """
    How names are resolved.

    In C{routes} a suffix with an empty list, or C{None}, is answered by the
    node itself.
    """

    resolvers: list[Resolver] | None = None
    routes: dict[str, list[Resolver] | None] | None = None
    fallbackResolvers: list[Resolver] | None = None
    domains: list[str] | None = None
    proxied: bool = False
    nameservers: list[str] | None = None
    certDomains: list[str] | None = None
    extraRecords: list[DNSRecord] | None = None
    exitNodeFilteredSet: list[str] | None = None
