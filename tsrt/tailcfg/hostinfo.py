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

    mappingVariesByDestIP: bool | None | UnsetType = UNSET
    workingIPv6: bool | None | UnsetType = UNSET
    osHasIPv6: bool | None | UnsetType = UNSET
    workingUDP: bool | None | UnsetType = UNSET
    workingICMPv4: bool | None | UnsetType = UNSET
    havePortMap: bool | UnsetType = UNSET
    upnp: bool | None | UnsetType = UNSET
    pmp: bool | None | UnsetType = UNSET
    pcp: bool | None | UnsetType = UNSET
    preferredDERP: int | UnsetType = UNSET
    linkType: str | UnsetType = UNSET
    derpLatency: dict[str, float] | None | UnsetType = UNSET
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
    container: bool | None | UnsetType = UNSET
    env: str = ""
    distro: str = ""
    distroVersion: str = ""
    distroCodeName: str = ""
    app: str = ""
    desktop: bool | None | UnsetType = UNSET
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
    userspace: bool | None | UnsetType = UNSET
    userspaceRouter: bool | None | UnsetType = UNSET
    appConnector: bool | None | UnsetType = UNSET
    servicesHash: str = ""
    peerRelay: bool = False
    exitNodeID: str = ""
    location: Location | None = None
    tpm: Raw | UnsetType = UNSET
    stateEncrypted: bool | None | UnsetType = UNSET
