"""The tailnet's DNS configuration."""

from __future__ import annotations

from msgspec import Struct

from tsrt.tailcfg.naming import jsonName


class Resolver(Struct, rename=jsonName, omit_defaults=True):
    """
    A DNS server to ask.

    @ivar addr: an address, with or without a port, or a URL of DNS over
        HTTPS.
    @ivar bootstrapResolution: addresses of the host in such a URL.
    @ivar useWithExitNode: whether it is asked even while an exit node is used.
    """

    addr: str = ""
    bootstrapResolution: list[str] | None = None
    useWithExitNode: bool = False


class DNSRecord(Struct, rename=jsonName, omit_defaults=True):
    """
    A name of the tailnet that is no node's.

    @ivar type: C{A}, C{AAAA}, or empty for whatever the value is.
    """

    name: str = ""
    type: str = ""
    value: str = ""


class DNSConfig(Struct, rename=jsonName, omit_defaults=True):
    """
    How names are resolved.

    @ivar resolvers: who answers for everything else.
    @ivar routes: who answers for names below a suffix; with an empty list, or
        C{None}, the node itself does.
    @ivar domains: what a short name may be a part of, in order.
    @ivar proxied: whether MagicDNS is on.
    @ivar exitNodeFilteredSet: suffixes that a node does not resolve for those
        whose exit node it is.
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
    tempCorpIssue13969: str = ""
