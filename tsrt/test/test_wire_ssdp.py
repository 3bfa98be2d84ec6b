"""
Tests for L{tsrt.wire.ssdp}.
"""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire.ssdp import (
    ALL,
    GATEWAY,
    LARGEST_DATAGRAM,
    Found,
    Search,
    buildFound,
    buildSearch,
    parseFound,
    parseSearch,
)

# As miniupnpd answers.
ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"CACHE-CONTROL: max-age=120\r\n"
    b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"USN: uuid:73616d61-6a6b-7a74-650a-0d24d4a5d636::"
    b"urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"EXT:\r\n"
    b"SERVER: Linux/6.1 UPnP/1.1 MiniUPnPd/2.3.1\r\n"
    b"LOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n"
    b'OPT: "http://schemas.upnp.org/upnp/1/0/"; ns=01\r\n'
    b"01-NLS: 1\r\nBOOTID.UPNP.ORG: 1\r\nCONFIGID.UPNP.ORG: 1337\r\n\r\n"
)

text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)


class SearchTests(SynchronousTestCase):
    """Searches."""

    def test_bytes(self) -> None:
        """A search is what devices wait for, to the byte."""
        self.assertEqual(
            buildSearch(),
            b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nST: ssdp:all\r\n"
            b'MAN: "ssdp:discover"\r\nMX: 2\r\n\r\n',
        )

    def test_parse(self) -> None:
        """A device reads it."""
        self.assertEqual(parseSearch(buildSearch()), Search(ALL, 2))
        self.assertEqual(parseSearch(buildSearch(GATEWAY, 5)), Search(GATEWAY, 5))

    def test_refused(self) -> None:
        """What is no search is told from one."""
        good = buildSearch()
        for wrong in (
            b"",
            good.replace(b"M-SEARCH", b"NOTIFY"),
            good.replace(b"discover", b"byebye"),
            good.replace(b"ST: ssdp:all\r\n", b""),
            good.replace(b"MX: 2", b"MX: soon"),
            good.replace(b"MX: 2", b"MX: 99999"),
            ANSWER,
        ):
            self.assertRaises(WireError, parseSearch, wrong)


class FoundTests(SynchronousTestCase):
    """Answers."""

    def test_parse(self) -> None:
        """An answer tells where the description is, and of what."""
        found = parseFound(ANSWER)
        self.assertEqual(found.location, "http://192.168.1.1:5000/rootDesc.xml")
        self.assertEqual(found.target, GATEWAY)
        self.assertTrue(found.name.startswith("uuid:73616d61-"))
        self.assertIn("MiniUPnPd", found.server)

    def test_sloppy(self) -> None:
        """Line feeds alone, other cases and a missing end are put up with."""
        sloppy = b"HTTP/1.0 200 ok\nlocation:http://192.168.1.1/d.xml \nst: x"
        self.assertEqual(
            parseFound(sloppy), Found("x", "http://192.168.1.1/d.xml", "", "")
        )

    def test_firstCounts(self) -> None:
        """Of a field that is there twice the first counts."""
        twice = ANSWER.replace(b"\r\n\r\n", b"\r\nLOCATION: http://192.0.2.66/\r\n\r\n")
        self.assertEqual(parseFound(twice), parseFound(ANSWER))

    def test_refused(self) -> None:
        """What is no answer is told from one."""
        for wrong in (
            b"",
            b"HTTP/1.1",
            buildSearch(),
            ANSWER.replace(b"200 OK", b"404 No"),
            ANSWER.replace(b"LOCATION", b"ELSEWHERE"),
            ANSWER.replace(b"EXT:", b"EXT"),
            ANSWER.replace(b"\r\n\r\n", b"\r\nX: " + bytes(LARGEST_DATAGRAM)),
            b"HTTP/1.1 200 OK\n" + b"".join(b"x%d:\n" % n for n in range(65)),
        ):
            self.assertRaises(WireError, parseFound, wrong)

    @given(st.builds(Found, text, text, text, text))
    @settings(max_examples=50, deadline=None)
    def test_roundTrip(self, found: Found) -> None:
        """What is written is read."""
        self.assertEqual(parseFound(buildFound(found)), found)

    @given(st.binary(max_size=400) | st.binary(max_size=80).map(lambda b: ANSWER + b))
    @settings(max_examples=200, deadline=None)
    def test_anything(self, datagram: bytes) -> None:
        """Whatever comes is read or refused, and never with another error."""
        for parse in (parseFound, parseSearch):
            with contextlib.suppress(WireError):
                parse(datagram)

    @given(st.integers(0, len(ANSWER) - 1), st.integers(0, 255))
    @settings(max_examples=200, deadline=None)
    def test_damaged(self, place: int, value: int) -> None:
        """Nor if a byte of a good answer is another."""
        damaged = bytearray(ANSWER)
        damaged[place] = value
        with contextlib.suppress(WireError):
            self.assertTrue(parseFound(bytes(damaged)).location)
