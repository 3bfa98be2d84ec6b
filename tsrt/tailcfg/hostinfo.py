"""What a node says about the machine it runs on."""

from __future__ import annotations

from msgspec import UNSET, Raw, Struct, UnsetType, field

from tsrt.tailcfg.naming import jsonName


class Service(Struct, rename=jsonName, omit_defaults=True):
    """A service that a node offers (C{Services[]})."""

    proto: str = ""
    port: int = 0
    description: str = ""


class NetInfo(Struct, rename=jsonName):
    """What a node found out about its network."""

    mappingVariesByDestIP: bool | UnsetType | None = UNSET
    workingIPv6: bool | UnsetType | None = UNSET
    osHasIPv6: bool | UnsetType | None = UNSET
    workingUDP: bool | UnsetType | None = UNSET
    workingICMPv4: bool | UnsetType | None = UNSET
    havePortMap: bool | UnsetType = UNSET
    upnp: bool | UnsetType | None = UNSET
    pmp: bool | UnsetType | None = UNSET
    pcp: bool | UnsetType | None = UNSET
    preferredDERP: int | UnsetType = UNSET
    linkType: str | UnsetType = UNSET
    derpLatency: dict[str, float] | UnsetType | None = UNSET
    firewallMode: str | UnsetType = UNSET


class Location(Struct, rename=jsonName, omit_defaults=True):
    """Where a machine stands."""

    country: str = ""
    countryCode: str = ""
    city: str = ""
    cityCode: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    priority: int = 0


class Hostinfo(Struct, rename=jsonName, omit_defaults=True):
    """The machine, its software and what it offers."""

    ipnVersion: str = ""
    frontendLogID: str = ""
    backendLogID: str = ""
    os: str = ""
    osVersion: str = ""
    container: bool | UnsetType | None = UNSET
    env: str = ""
    distro: str = ""
    distroVersion: str = ""
    distroCodeName: str = ""
    app: str = ""
    desktop: bool | UnsetType | None = UNSET
    package: str = ""
    deviceModel: str = ""
    pushDeviceToken: str = ""
    hostname: str = ""
    shieldsUp: bool = False
    shareeNode: bool = False
    noLogsNoSupport: bool = False
    remoteConfig: bool = False
    wireIngress: bool = False
    ingressEnabled: bool = False
    allowsUpdate: bool = False
    machine: str = ""
    goArch: str = ""
    goArchVar: str = ""
    goVersion: str = ""
    routableIPs: list[str] | None = None
    requestTags: list[str] | None = None
    woLMACs: list[str] | None = None
    services: list[Service] | None = None
    netInfo: NetInfo | None = None
    sshHostKeys: list[str] | None = field(name="sshHostKeys", default=None)
    cloud: str = ""
    userspace: bool | UnsetType | None = UNSET
    userspaceRouter: bool | UnsetType | None = UNSET
    appConnector: bool | UnsetType | None = UNSET
    servicesHash: str = ""
    peerRelay: bool = False
    exitNodeID: str = ""
    location: Location | None = None
    tpm: Raw | UnsetType = UNSET
    stateEncrypted: bool | UnsetType | None = UNSET
