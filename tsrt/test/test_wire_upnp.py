"""
Tests for L{tsrt.wire.upnp} and L{tsrt.wire.xmltree}.
"""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire.upnp import (
    CONFLICT,
    WAN_IP_1,
    WAN_IP_2,
    WAN_PPP_1,
    Description,
    Fault,
    Service,
    buildAction,
    buildDescription,
    buildFault,
    buildResult,
    connectionServices,
    parseAction,
    parseDescription,
    parseResult,
    soapAction,
)
from tsrt.wire.xmltree import (
    DEEPEST,
    LARGEST_DOCUMENT,
    MOST_ELEMENTS,
    parseDocument,
    quote,
)

# Written by hand, in the manner of a router of a telephone company.
DESCRIPTION = b"""\r\n<?xml version="1.0" encoding="iso-8859-1"?>
<root xmlns="urn:schemas-upnp-org:device-1-0">
<specVersion><major>1</major><minor>0</minor></specVersion>
<URLBase>http://192.168.1.1:49000/</URLBase>
<device>
 <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
 <friendlyName>B\xfcro &amp; Flur</friendlyName>
 <serviceList><service>
  <serviceType>urn:schemas-any-com:service:Any:1</serviceType>
  <controlURL>/any</controlURL></service></serviceList>
 <deviceList><device>
  <deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType>
  <deviceList><device>
   <deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType>
   <serviceList>
    <service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType>
     <controlURL> /ppp </controlURL></service>
    <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>
     <controlURL>/ip</controlURL></service>
    <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>
     <controlURL></controlURL></service>
   </serviceList></device></deviceList></device></deviceList>
</device></root>\0"""

ADD = b"""<?xml version="1.0"?>
<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" \
s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>\
<u:GetExternalIPAddress xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">\
</u:GetExternalIPAddress></s:Body></s:Envelope>
"""

ANSWER = b"""<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/">
<SOAP-ENV:Body><m:GetExternalIPAddressResponse xmlns:m="x">
<NewExternalIPAddress> 203.0.113.9 </NewExternalIPAddress>
</m:GetExternalIPAddressResponse></SOAP-ENV:Body></SOAP-ENV:Envelope>"""

FAULT = b"""<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>
<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode>
<errorDescription>ConflictInMappingEntry</errorDescription></UPnPError></detail>
</s:Fault></s:Body></s:Envelope>"""

words = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF), max_size=30)
names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9]{0,10}\Z")


class DocumentTests(SynchronousTestCase):
    """XML, and its limits."""

    def test_tree(self) -> None:
        """Elements have names without prefixes, text and children."""
        root = parseDocument(
            b"<a:b xmlns:a='x'> t<c>1</c><c>2</c>u<d><c>3</c></d></a:b>"
        )
        self.assertEqual((root.name, root.text), ("b", "tu"))
        self.assertEqual(root.textOf("c"), "1")
        self.assertEqual([each.text for each in root.find("c")], ["1", "2", "3"])
        self.assertEqual(root.textOf("none"), "")
        self.assertIsNone(root.child("none"))

    def test_encodings(self) -> None:
        """What a document says of its encoding is not believed."""
        for document in (
            b"<?xml version='1.0' encoding='utf-16'?><a>\xc3\xbc</a>",
            b"<?xml version='1.0' encoding='no-such-thing'?><a>\xfc</a>",
            b"<?xml version='1.0' encoding='idna'?><a>&#252;</a>",
            b"\xef\xbb\xbf \n<a>\xc3\xbc</a>\0\0",
        ):
            self.assertEqual(parseDocument(document).text, "\xfc", document)

    def test_entities(self) -> None:
        """No document declares entities, so none expands or fetches any."""
        laughs = b"".join(
            b"<!ENTITY l%d '%s'>" % (n + 1, b"&l%d;" % n * 10) for n in range(9)
        )
        for document in (
            b"<!DOCTYPE a [<!ENTITY l0 'ha'>" + laughs + b"]><a>&l9;</a>",
            b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
            b"<!DOCTYPE a SYSTEM 'http://192.0.2.66/a.dtd'><a/>",
            b"<!DOCTYPE a><a/>",
            b"<a>&x;</a>",
        ):
            self.assertRaises(WireError, parseDocument, document)

    def test_limits(self) -> None:
        """Size, depth and number are bounded, and go up to their bounds."""
        deep = b"<a>" * DEEPEST + b"</a>" * DEEPEST
        many = b"<a>" + b"<b/>" * (MOST_ELEMENTS - 1) + b"</a>"
        large = b"<a>" + b"x" * (LARGEST_DOCUMENT - 7) + b"</a>"
        for document in (deep, many, large):
            parseDocument(document)
        for document in (
            b"<a>" + deep + b"</a>",
            many.replace(b"</a>", b"<b/></a>"),
            large.replace(b"</a>", b"x</a>"),
        ):
            self.assertRaises(WireError, parseDocument, document)

    def test_malformed(self) -> None:
        """What is no XML is refused."""
        for document in (b"", b"  ", b"<a>", b"<a></b>", b"<a/><a/>", b"hello", b"\0"):
            self.assertRaises(WireError, parseDocument, document)

    @given(words)
    @settings(max_examples=100, deadline=None)
    def test_quote(self, text: str) -> None:
        """Quoted text is read back; only what XML cannot hold is lost."""
        read = parseDocument(f'<a b="{quote(text)}">{quote(text)}</a>'.encode())
        self.assertEqual(read.text, text.replace("\r", "\n").strip())

    def test_quoteUnspeakable(self) -> None:
        """Characters that no document may have are left out."""
        self.assertEqual(quote("a\0b\x1fc\ud800d\uffffe<"), "abcde&lt;")

    @given(st.binary(max_size=300))
    @settings(max_examples=200, deadline=None)
    def test_anything(self, document: bytes) -> None:
        """Whatever comes is read or refused, and never with another error."""
        with contextlib.suppress(WireError):
            parseDocument(document)


class DescriptionTests(SynchronousTestCase):
    """Device descriptions."""

    def test_parse(self) -> None:
        """Services are found wherever they are; those without a URL are none."""
        description = parseDescription(DESCRIPTION)
        self.assertEqual(description.name, "B\xfcro & Flur")
        self.assertEqual(description.base, "http://192.168.1.1:49000/")
        self.assertEqual(
            connectionServices(description),
            [Service(WAN_IP_1, "/ip"), Service(WAN_PPP_1, "/ppp")],
        )
        self.assertEqual(len(description.services), 3)

    def test_refused(self) -> None:
        """What is no description is told from one."""
        for wrong in (b"<html><body/></html>", b"<root/>", ANSWER, b"nothing"):
            self.assertRaises(WireError, parseDescription, wrong)

    @given(words, words, st.lists(st.tuples(names, names), max_size=5))
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(
        self, name: str, base: str, pairs: list[tuple[str, str]]
    ) -> None:
        """What is written is read."""
        name, base = name.strip(), base.strip()
        services = tuple(Service(*pair) for pair in pairs)
        description = Description(name, base, services)
        document = buildDescription(description, 2)
        self.assertEqual(parseDescription(document), description)

    @given(st.integers(0, len(DESCRIPTION) - 1), st.integers(0, 255))
    @settings(max_examples=200, deadline=None)
    def test_damaged(self, place: int, value: int) -> None:
        """A description with another byte is read or refused."""
        damaged = bytearray(DESCRIPTION)
        damaged[place] = value
        with contextlib.suppress(WireError):
            for service in parseDescription(bytes(damaged)).services:
                self.assertTrue(service.type and service.controlURL)


class ActionTests(SynchronousTestCase):
    """SOAP."""

    def test_bytes(self) -> None:
        """A request is what gateways wait for, to the byte."""
        self.assertEqual(buildAction(WAN_IP_1, "GetExternalIPAddress"), ADD)
        self.assertEqual(
            soapAction(WAN_IP_1, "GetExternalIPAddress"),
            '"urn:schemas-upnp-org:service:WANIPConnection:1#GetExternalIPAddress"',
        )

    def test_result(self) -> None:
        """Results are read whatever the prefixes are called."""
        self.assertEqual(
            parseResult("GetExternalIPAddress", ANSWER),
            {"NewExternalIPAddress": "203.0.113.9"},
        )

    def test_fault(self) -> None:
        """A fault is an answer too, and tells why."""
        self.assertEqual(
            parseResult("AddPortMapping", FAULT),
            Fault(CONFLICT, "ConflictInMappingEntry"),
        )

    def test_vagueFault(self) -> None:
        """Faults without a number, or with nonsense for one, have none."""
        for document, fault in (
            (FAULT.replace(b"718", b"-1"), Fault(0, "ConflictInMappingEntry")),
            (FAULT.replace(b"718", b"9" * 5000), Fault(0, "ConflictInMappingEntry")),
            (
                FAULT.replace(b"UPnPError ", b"Other ")
                .replace(b"/UPnPError>", b"/Other>", 2)
                .replace(b"UPnPError</Other>", b"no</faultstring>", 1)
                .replace(b"<faultstring>UPnPError<", b"<faultstring>no<"),
                Fault(0, "no"),
            ),
        ):
            self.assertEqual(parseResult("AddPortMapping", document), fault)

    def test_refused(self) -> None:
        """What answers something else, or nothing, is no answer."""
        for wrong in (
            b"<html/>",
            DESCRIPTION,
            ANSWER.replace(b"Envelope", b"Letter"),
            ANSWER.replace(b"Address>", b"X>"),
            b"<Envelope><Body/></Envelope>",
            b"",
        ):
            self.assertRaises(WireError, parseResult, "AddPortMapping", wrong)

    @given(names, st.dictionaries(names, words, max_size=8))
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, action: str, values: dict[str, str]) -> None:
        """What is asked and answered is read."""
        values = {name: text.strip() for name, text in values.items()}
        self.assertEqual(
            parseAction(buildAction(WAN_IP_2, action, values)), (action, values)
        )
        self.assertEqual(
            parseResult(action, buildResult(WAN_IP_2, action, values)), values
        )

    @given(st.integers(1, 99999), words)
    @settings(max_examples=50, deadline=None)
    def test_faultRoundTrip(self, code: int, reason: str) -> None:
        """What is refused is read."""
        fault = Fault(code, reason.strip())
        self.assertEqual(parseResult("Anything", buildFault(fault)), fault)

    @given(st.integers(0, len(FAULT) - 1), st.integers(0, 255))
    @settings(max_examples=200, deadline=None)
    def test_damaged(self, place: int, value: int) -> None:
        """A fault with another byte is read or refused."""
        damaged = bytearray(FAULT)
        damaged[place] = value
        with contextlib.suppress(WireError):
            self.assertIsInstance(parseResult("AddPortMapping", bytes(damaged)), Fault)
