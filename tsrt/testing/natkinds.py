"""
The kinds of NATs and firewalls of the simulated internet, as values.

The words are those of RFC 4787: a NAT I{maps} an internal address and port to
an external one, and I{filters} what comes back to it.  Each of the two may
depend on nothing, on the other side's address, or on its address and port.
"""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen, validators


class Mapping(Enum):
    """On what it depends which external port a NAT uses (RFC 4787, 4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_PORT_DEPENDENT = "address- and port-dependent"


class Filtering(Enum):
    """On what it depends who may answer (RFC 4787, 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_PORT_DEPENDENT = "address- and port-dependent"


class Refusal(Enum):
    """Why a router let something not through; the value is what is counted."""

    BLOCKED = "nat: protocol blocked"
    """The kind lets this protocol out for nobody."""
    NO_MAPPING = "nat: no mapping"
    """Nothing inside belongs to the port, or belongs to it any more."""
    FILTERED = "nat: filtered"
    """The mapping is there, but not for this sender."""
    FULL = "nat: table full"
    """The router follows as many flows as it can, or has no port left."""
    NO_HAIRPIN = "nat: no hairpin"
    """One inside wrote to the external address of another inside."""


@frozen(kw_only=True)
class NATKind:
    """What one sort of router does to what crosses it."""

    name: str
    """The one word by which tests and tables call it."""

    mapping: Mapping = Mapping.ENDPOINT_INDEPENDENT
    filtering: Filtering = Filtering.ADDRESS_PORT_DEPENDENT

    translates: bool = True
    """Whether it gives packets another address; a firewall does not."""

    hairpin: bool = False
    """Whether two inside reach each other by external addresses (RFC 4787, 6)."""

    preservesPort: bool = True
    """Whether it uses the internal port outside, where that is free."""

    randomPorts: bool = False
    """Whether other ports are drawn by chance instead of one after the other."""

    overloads: bool = False
    """
    Whether several mappings to different other sides may share an external
    port, as with Linux; of use only with an address- and port-dependent
    mapping.
    """

    udpTimeout: float = field(default=30.0, validator=validators.gt(0.0))
    """Seconds without a packet after which a UDP mapping is forgotten."""

    tcpTimeout: float = field(default=7440.0, validator=validators.gt(0.0))
    """Seconds after which a silent TCP mapping is forgotten (RFC 5382)."""

    refreshInbound: bool = True
    """Whether packets from outside keep a mapping alive (RFC 4787, 4.3)."""

    blocksUDP: bool = False
    """Whether UDP goes neither out nor in."""

    limit: int = field(default=16384, validator=validators.ge(1))
    """The most mappings of one router."""

    carrier: NATKind | None = None
    """The NAT of the provider, behind which this one is."""

    serves: tuple[str, ...] = ()
    """By which of C{"NAT-PMP"}, C{"PCP"} and C{"UPnP"} it maps ports on request;
    the network then has them as C{gateways}."""

    def __attrs_post_init__(self) -> None:
        """
        Refuse what no router can be.

        @raise ValueError: says which two settings contradict each other.
        """
        if self.overloads and self.mapping is not Mapping.ADDRESS_PORT_DEPENDENT:
            raise ValueError(
                f"NAT kind {self.name!r}: a port can be shared only by mappings "
                "that depend on address and port of the other side; set mapping "
                "to ADDRESS_PORT_DEPENDENT or leave overloads off"
            )
        if self.carrier is not None and not self.translates:
            raise ValueError(
                f"NAT kind {self.name!r}: what is behind a carrier's NAT has to "
                "translate, because the carrier knows none of its addresses"
            )
        unknown = set(self.serves) - {"NAT-PMP", "PCP", "UPnP"}
        if unknown or (self.serves and not self.translates):
            raise ValueError(
                f"NAT kind {self.name!r}: ports are mapped by NAT-PMP, PCP or UPnP, "
                "and by routers that translate"
            )


NONE = NATKind(name="none", translates=False, filtering=Filtering.ENDPOINT_INDEPENDENT)
"""No NAT and no firewall: public addresses that anybody reaches."""

FIREWALL = NATKind(name="firewall", translates=False)
"""Public addresses behind a firewall that lets answers in and nothing else."""

FULL_CONE = NATKind(
    name="full-cone", filtering=Filtering.ENDPOINT_INDEPENDENT, hairpin=True
)
"""Whoever knows the external port may write to it."""

RESTRICTED = NATKind(name="restricted", filtering=Filtering.ADDRESS_DEPENDENT)
"""Only addresses that were written to may answer, from any port."""

PORT_RESTRICTED = NATKind(name="port-restricted", preservesPort=False)
"""Only what was written to may answer; the external port is another."""

EASY = NATKind(name="easy", hairpin=True)
"""A good home router: one mapping for all, hairpin, ports kept."""

MASQUERADE = NATKind(
    name="masquerade", mapping=Mapping.ADDRESS_PORT_DEPENDENT, overloads=True
)
"""
Linux: a mapping for each other side, with the same external port while nobody
else inside uses that port to the same other side.
"""

ADDRESS_SYMMETRIC = NATKind(
    name="address-symmetric",
    mapping=Mapping.ADDRESS_DEPENDENT,
    filtering=Filtering.ADDRESS_DEPENDENT,
    preservesPort=False,
)
"""Another external port for each address that is written to."""

SYMMETRIC = NATKind(
    name="symmetric",
    mapping=Mapping.ADDRESS_PORT_DEPENDENT,
    preservesPort=False,
)
"""Another external port for each other side, one after the other."""

SYMMETRIC_RANDOM = NATKind(
    name="symmetric-random",
    mapping=Mapping.ADDRESS_PORT_DEPENDENT,
    preservesPort=False,
    randomPorts=True,
)
"""Another external port for each other side, which nobody can guess."""

SYMMETRIC_PMP = NATKind(
    name="symmetric-pmp",
    mapping=Mapping.ADDRESS_PORT_DEPENDENT,
    preservesPort=False,
    randomPorts=True,
    serves=("NAT-PMP",),
)
"""The worst sort, but one that maps a port when it is asked by NAT-PMP."""

SYMMETRIC_UPNP = NATKind(
    name="symmetric-upnp",
    mapping=Mapping.ADDRESS_PORT_DEPENDENT,
    preservesPort=False,
    randomPorts=True,
    serves=("UPnP",),
)
"""The same by UPnP."""

CARRIER = NATKind(
    name="carrier",
    filtering=Filtering.ENDPOINT_INDEPENDENT,
    hairpin=True,
    preservesPort=False,
    randomPorts=True,
    udpTimeout=120.0,
)
"""A provider's NAT as RFC 6888 asks for."""

CGNAT = NATKind(name="cgnat", carrier=CARRIER)
"""A home router behind a provider's NAT."""

HARD_CGNAT = NATKind(name="hard-cgnat", carrier=SYMMETRIC_RANDOM)
"""A home router behind a provider's NAT of the worst sort, as mobile networks have."""

UDP_BLOCKED = NATKind(name="udp-blocked", blocksUDP=True)
"""An office that lets TCP out and no UDP."""

NAT_KINDS: dict[str, NATKind] = {
    kind.name: kind
    for kind in (
        NONE,
        FIREWALL,
        FULL_CONE,
        RESTRICTED,
        PORT_RESTRICTED,
        EASY,
        MASQUERADE,
        ADDRESS_SYMMETRIC,
        SYMMETRIC,
        SYMMETRIC_RANDOM,
        SYMMETRIC_PMP,
        SYMMETRIC_UPNP,
        CGNAT,
        HARD_CGNAT,
        UDP_BLOCKED,
    )
}
"""The kinds that a test can name by a word."""
