"""
UPnP Internet gateways: device descriptions, and the SOAP messages by which a
port is asked for; both roles.

Reference: UPnP Device Architecture 1.1 sections 2 and 3; UPnP
InternetGatewayDevice:1 and :2, WANIPConnection:1 and :2, WANPPPConnection:1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tsrt.errors import WireError
from tsrt.wire.xmltree import Element, parseDocument, quote

WAN_IP_2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
WAN_IP_1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
WAN_PPP_1 = "urn:schemas-upnp-org:service:WANPPPConnection:1"

CONNECTION_SERVICES = (WAN_IP_2, WAN_IP_1, WAN_PPP_1)
"""The services that map ports, the best one first."""

CONTENT_TYPE = 'text/xml; charset="utf-8"'

INVALID_ACTION = 401
INVALID_ARGS = 402
ACTION_FAILED = 501
OPTIONAL_ACTION = 602
"""The action exists, but not here."""
NOT_AUTHORIZED = 606
CONFLICT = 718
"""Somebody else has the external port."""
SAME_PORT_VALUES = 724
"""The external port must be the internal one."""
ONLY_PERMANENT_LEASES = 725
NO_PORT_MAPS = 728
"""There are no ports left to map."""

_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
_ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"
_DEVICE = "urn:schemas-upnp-org:device-1-0"
_CONTROL = "urn:schemas-upnp-org:control-1-0"


class Service(NamedTuple):
    """One service of a device."""

    type: str
    controlURL: str
    """As it is written: absolute, or relative to the description's URL."""


class Description(NamedTuple):
    """What a device says of itself."""

    name: str
    """For people."""
    base: str
    """What URLs are relative to; empty for the URL of the description."""
    services: tuple[Service, ...]
    """Those of all devices in it, in order."""


class Fault(NamedTuple):
    """Why a gateway did not do what it was asked for."""

    code: int
    """See the constants; 0 when the gateway does not say."""
    reason: str


# -- descriptions ------------------------------------------------------------------


def parseDescription(document: bytes) -> Description:
    """
    Read the description of a device.

    @raise WireError: if it is none.
    """
    root = parseDocument(document)
    device = root.child("device")
    if root.name != "root" or device is None:
        raise WireError(f"a UPnP description begins with {root.name[:40]!r}")
    services = tuple(
        Service(each.textOf("serviceType"), each.textOf("controlURL"))
        for each in root.find("service")
        if each.textOf("serviceType") and each.textOf("controlURL")
    )
    return Description(device.textOf("friendlyName"), root.textOf("URLBase"), services)


def connectionServices(description: Description) -> list[Service]:
    """The services of a device that map ports, the best one first."""
    return [
        service
        for wanted in CONNECTION_SERVICES
        for service in description.services
        if service.type == wanted
    ]


def buildDescription(description: Description, version: int = 1) -> bytes:
    """
    Write the description of a gateway: a WAN connection device in a WAN device
    in a gateway.

    @param version: that of the gateway, 1 or 2.
    """
    services = "".join(
        f"<service><serviceType>{quote(service.type)}</serviceType>"
        "<serviceId>urn:upnp-org:serviceId:WANConnection</serviceId>"
        f"<controlURL>{quote(service.controlURL)}</controlURL>"
        "<eventSubURL></eventSubURL><SCPDURL>/scpd.xml</SCPDURL></service>"
        for service in description.services
    )
    inner = f"<serviceList>{services}</serviceList>"
    for kind in ("WANConnectionDevice", "WANDevice", "InternetGatewayDevice"):
        name = quote(description.name) if kind.startswith("Internet") else kind
        device = (
            f"<device><deviceType>urn:schemas-upnp-org:device:{kind}:{version}"
            f"</deviceType><friendlyName>{name}</friendlyName>{inner}</device>"
        )
        inner = f"<deviceList>{device}</deviceList>"
    base = f"<URLBase>{quote(description.base)}</URLBase>" if description.base else ""
    return (
        f'<?xml version="1.0"?>\n<root xmlns="{_DEVICE}"><specVersion><major>1</major>'
        f"<minor>{version - 1}</minor></specVersion>{base}{device}</root>\n"
    ).encode()


# -- actions -----------------------------------------------------------------------


def soapAction(service: str, action: str) -> str:
    """The value of the header field C{SOAPAction} of a request."""
    return f'"{service}#{action}"'


def buildAction(
    service: str, action: str, arguments: Mapping[str, str] | None = None
) -> bytes:
    """
    Ask for an action.

    @param service: the type of the service.
    @param arguments: by name, in the order in which the service has them; there
        are gateways that do not find them otherwise.
    """
    return _envelope(f'u:{action} xmlns:u="{quote(service)}"', arguments or {})


def buildResult(service: str, action: str, results: Mapping[str, str]) -> bytes:
    """Answer that an action is done."""
    return _envelope(f'u:{action}Response xmlns:u="{quote(service)}"', results)


def buildFault(fault: Fault) -> bytes:
    """Answer that an action is not done."""
    return _wrap(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>"
        f'<detail><UPnPError xmlns="{_CONTROL}"><errorCode>{fault.code}</errorCode>'
        f"<errorDescription>{quote(fault.reason)}</errorDescription></UPnPError>"
        "</detail></s:Fault>"
    )


def parseAction(document: bytes) -> tuple[str, dict[str, str]]:
    """
    Read a request, as a gateway does.

    @return: the action and its arguments.
    @raise WireError: if it is none.
    """
    content = _content(document)
    return content.name, {each.name: each.text for each in content.children}


def parseResult(action: str, document: bytes) -> dict[str, str] | Fault:
    """
    Read an answer.

    @param action: what was asked for.
    @return: the results by name, or what a gateway has against it.
    @raise WireError: if it is no answer to that.
    """
    content = _content(document)
    if content.name == "Fault":
        return _fault(content)
    if content.name != f"{action}Response":
        raise WireError(f"{action} is answered by {content.name[:40]!r}")
    return {each.name: each.text for each in content.children}


def _fault(content: Element) -> Fault:
    detail = next(content.find("UPnPError"), None)
    if detail is None:
        return Fault(0, content.textOf("faultstring")[:200])
    code = detail.textOf("errorCode")
    number = int(code) if code.isascii() and code.isdecimal() and len(code) < 6 else 0
    return Fault(number, detail.textOf("errorDescription")[:200])


def _content(document: bytes) -> Element:
    root = parseDocument(document)
    body = root.child("Body")
    if root.name != "Envelope" or body is None or not body.children:
        raise WireError(f"a SOAP message begins with {root.name[:40]!r}, or is empty")
    return body.children[0]


def _envelope(opening: str, values: Mapping[str, str]) -> bytes:
    inner = "".join(f"<{name}>{quote(text)}</{name}>" for name, text in values.items())
    name = opening.partition(" ")[0]
    return _wrap(f"<{opening}>{inner}</{name}>")


def _wrap(content: str) -> bytes:
    return (
        f'<?xml version="1.0"?>\n<s:Envelope xmlns:s="{_ENVELOPE}" '
        f's:encodingStyle="{_ENCODING}"><s:Body>{content}</s:Body></s:Envelope>\n'
    ).encode()
