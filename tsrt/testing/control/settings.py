"""What can be configured about the embedded control server."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen, validators

from tsrt.keys import MachineKey, Secret
from tsrt.tailcfg import DERPMap
from tsrt.testing.control.registration import RegistrationOptions


@frozen(kw_only=True)
class DNSSettings:
    """
    How nodes resolve names.

    @ivar magicDNS: whether nodes answer for the names of the tailnet.
    @ivar searchDomains: domains to try besides that of the tailnet.
    @ivar records: further names: name, type (C{A}, C{AAAA}) and value.
    @ivar nameservers: resolvers for everything else.
    @ivar routes: resolvers for some suffixes.
    @ivar certificates: whether nodes may ask for certificates for their names.
    """

    magicDNS: bool = True
    searchDomains: tuple[str, ...] = ()
    records: tuple[tuple[str, str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    routes: Mapping[str, tuple[str, ...]] = field(factory=dict)
    certificates: bool = False


@frozen(kw_only=True)
class ControlConfig:
    """
    The configuration of a L{tsrt.testing.control.ControlServer}.

    All times are in seconds.

    @ivar domain: the DNS suffix of the nodes.
    @ivar users: the login names of the first users.
    @ivar key: the server's key; a new one if not given.
    @ivar registration: how nodes come in.
    @ivar policy: the policy document; empty to let all talk with all.
    @ivar derpMap: the relays.
    @ivar dns: how nodes resolve names.
    @ivar ipv4: whether nodes get IPv4 addresses.
    @ivar ipv6: whether nodes get IPv6 addresses.
    @ivar minimumVersion: the oldest capability version that is let in.
    @ivar keepAlive: bounds of the time between frames of a map stream.
    @ivar offlineGrace: how long a node may be away before it is offline.
    @ivar ephemeralTimeout: how long an ephemeral node may be away.
    @ivar pollLimit: bytes that may wait for a slow reader of maps before its
        stream is closed.
    @ivar fileSharing: whether nodes may send each other files.
    @ivar attributes: node attributes for all nodes.
    @ivar adminToken: the token of the administration interface over HTTP; it
        is off without one.
    @ivar host: the name or address in the server's URL, if it is another than
        that of its port.
    @ivar url: the whole URL, if C{host} is not enough to say it.
    """

    domain: str = field(default="tailnet.test", validator=validators.min_len(1))
    users: tuple[str, ...] = field(default=("user",), validator=validators.min_len(1))
    key: MachineKey | None = None
    registration: RegistrationOptions = field(factory=RegistrationOptions)
    policy: str = ""
    derpMap: DERPMap = field(factory=DERPMap)
    dns: DNSSettings = field(factory=DNSSettings)
    ipv4: bool = True
    ipv6: bool = True
    minimumVersion: int = 68
    keepAlive: tuple[float, float] = (50.0, 59.0)
    offlineGrace: float = 10.0
    ephemeralTimeout: float = 300.0
    pollLimit: int = 4 << 20
    fileSharing: bool = True
    attributes: Mapping[str, tuple[object, ...]] = field(factory=dict)
    adminToken: Secret | None = None
    host: str = ""
    url: str = ""
