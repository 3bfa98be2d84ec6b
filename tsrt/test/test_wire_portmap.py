"""
Tests for L{tsrt.wire.portmap}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.wire.portmap import (
    RESULT_NOT_AUTHORISED,
    PCPAnnounce,
    PCPMapping,
    PMPAddress,
    PMPMapping,
    buildPCPAnnounceRequest,
    buildPCPMapRequest,
    buildPMPMapRequest,
    parsePortmapReply,
)

hexa = bytes.fromhex
NONCE = bytes(range(12))

# Written out by hand from the layouts of RFC 6886 and RFC 6887.
PMP_ADDRESS = hexa("0080000000000e10cb007109")
PMP_MAPPING = hexa("0081000000000e10a2a9c00100001c20")
PCP_ANNOUNCE = hexa("028000000000000000000e10") + bytes(12)
PCP_MAPPING = (
    hexa("0281000000001c2000000e10")
    + bytes(12)
    + NONCE
    + hexa("11000000a2a9c00100000000000000000000ffffcb007109")
)


class RequestTests(SynchronousTestCase):
    """Requests."""

    def test_renew(self) -> None:
        """A renewal names the port that we had."""
        self.assertEqual(
            buildPMPMapRequest(41641, 49153).hex(), "00010000a2a9c00100001c20"
        )

    def test_delete(self) -> None:
        """A lifetime of zero deletes."""
        self.assertEqual(
            buildPMPMapRequest(41641, lifetime=0).hex(), "00010000a2a9000000000000"
        )

    def test_announce(self) -> None:
        """An announce request is a header alone."""
        request = buildPCPAnnounceRequest(parseAddress("192.168.1.5"))
        self.assertEqual(
            request.hex(), "020000000000000000000000000000000000ffffc0a80105"
        )

    def test_pcpRenew(self) -> None:
        """A PCP renewal names address and port that we had."""
        request = buildPCPMapRequest(
            parseAddress("192.168.1.5"),
            NONCE,
            41641,
            49153,
            parseAddress("203.0.113.9"),
            600,
        )
        self.assertEqual(len(request), 60)
        self.assertEqual(request[4:8], b"\0\0\2\x58")
        self.assertEqual(request[24:], PCP_MAPPING[24:])


class ReplyTests(SynchronousTestCase):
    """Replies."""

    def test_replies(self) -> None:
        """Each kind of reply."""
        public = parseAddress("203.0.113.9")
        for datagram, expected in (
            (PMP_ADDRESS, PMPAddress(0, 3600, public)),
            (PMP_MAPPING, PMPMapping(0, 3600, 41641, 49153, 7200)),
            (PCP_ANNOUNCE, PCPAnnounce(0, 0, 3600)),
            (PCP_MAPPING, PCPMapping(0, 7200, 3600, NONCE, 41641, 49153, public)),
        ):
            reply = parsePortmapReply(datagram)
            self.assertEqual(reply, expected)
            self.assertIs(type(reply), type(expected))
            self.assertEqual(parsePortmapReply(datagram + b"more"), expected)

    def test_results(self) -> None:
        """A refusal is a reply, not an error."""
        for datagram in (
            PMP_MAPPING[:3] + b"\2" + PMP_MAPPING[4:],
            PCP_MAPPING[:3] + b"\2" + PCP_MAPPING[4:],
        ):
            reply = parsePortmapReply(datagram)
            self.assertEqual(reply.result, RESULT_NOT_AUTHORISED)

    def test_cutShort(self) -> None:
        """A reply that lacks anything is an error."""
        for datagram in (PMP_ADDRESS, PMP_MAPPING, PCP_ANNOUNCE, PCP_MAPPING):
            for length in range(len(datagram)):
                self.assertRaises(WireError, parsePortmapReply, datagram[:length])

    def test_rejected(self) -> None:
        """Requests, other operations, versions and protocols."""
        for datagram in (
            b"\1" + PMP_MAPPING[1:],
            b"\0\x82" + PMP_MAPPING[2:],
            b"\0\1" + PMP_MAPPING[2:],
            b"\2\1" + PCP_MAPPING[2:],
            b"\2\x82" + PCP_MAPPING[2:],
            PCP_MAPPING[:36] + b"\6" + PCP_MAPPING[37:],
        ):
            self.assertRaises(WireError, parsePortmapReply, datagram)

    @given(st.sampled_from([b"", b"\0\x80", b"\0\x81", b"\2\x81"]), st.binary())
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, front: bytes, rest: bytes) -> None:
        """Any bytes are a reply or raise L{WireError}."""
        try:
            parsePortmapReply(front + rest)
        except WireError:
            pass
