"""The relays of a tailnet."""

from __future__ import annotations

from msgspec import Struct, field

from tsrt.tailcfg.naming import jsonName


class DERPNode(Struct, rename=jsonName, omit_defaults=True):
    """
    One relay server of a region.

    @ivar ipv4: an address to use without DNS; empty: ask DNS; anything else:
        no IPv4.  C{ipv6} likewise.
    @ivar stunPort: 0 means 3478, -1 means none.
    @ivar derpPort: 0 means 443.
    """

    name: str = ""
    regionID: int = 0
    hostName: str = ""
    certName: str = ""
    ipv4: str = field(name="IPv4", default="")
    ipv6: str = field(name="IPv6", default="")
    stunPort: int = 0
    stunOnly: bool = False
    derpPort: int = 0
    insecureForTests: bool = False
    stunTestIP: str = ""
    canPort80: bool = False


class DERPRegion(Struct, rename=jsonName, omit_defaults=True):
    """A place with relay servers that know each other's clients."""

    regionID: int = 0
    regionCode: str = ""
    regionName: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    avoid: bool = False
    noMeasureNoHome: bool = False
    nodes: list[DERPNode] | None = None


class DERPHomeParams(Struct, rename=jsonName):
    """How regions compare; C{None} means unchanged, empty means all alike."""

    regionScore: dict[int, float] | None = None


class DERPMap(Struct, rename=jsonName, omit_defaults=True):
    """
    All regions.

    In an update a region that is C{None} is gone, and C{regions} that are
    C{None} are unchanged.
    """

    homeParams: DERPHomeParams | None = None
    regions: dict[int, DERPRegion | None] | None = None
    omitDefaultRegions: bool = field(name="omitDefaultRegions", default=False)
