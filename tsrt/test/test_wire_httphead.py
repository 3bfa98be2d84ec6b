"""
Tests for L{tsrt.wire.httphead}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.wire.httphead import LARGEST_HEAD, ResponseHeadParser


class ResponseHeadTests(SynchronousTestCase):
    """The head of a response is told from what follows it."""

    def test_whole(self) -> None:
        """Status, headers and surplus come out."""
        parsed = ResponseHeadParser().feed(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nA:  b \r\n\r\nrest"
        )
        assert parsed is not None
        head, surplus = parsed
        self.assertEqual((head.status, head.reason), (101, "Switching Protocols"))
        self.assertEqual(head.statusText, "101 Switching Protocols")
        self.assertEqual(head.header("upgrade"), "DERP")
        self.assertEqual(head.header("a"), "b")
        self.assertIsNone(head.header("c"))
        self.assertEqual(surplus, b"rest")

    def test_pieces(self) -> None:
        """The head may come byte by byte."""
        parser = ResponseHeadParser()
        data = b"HTTP/1.0 200 OK\r\nX: y\r\n\r\n"
        for byte in data[:-1]:
            self.assertIsNone(parser.feed(bytes((byte,))))
        parsed = parser.feed(data[-1:])
        assert parsed is not None
        self.assertEqual((parsed[0].status, parsed[1]), (200, b""))

    def test_noReason(self) -> None:
        """The words behind the status may be missing."""
        parsed = ResponseHeadParser().feed(b"HTTP/1.1 204\r\n\r\n")
        assert parsed is not None
        self.assertEqual(parsed[0].statusText, "204")

    def test_malformed(self) -> None:
        """What is no response is an error as soon as it shows."""
        for data in (
            b"SSH-2.0",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 xyz OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n spaced: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"x" * LARGEST_HEAD,
            b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * LARGEST_HEAD + b"\r\n\r\n",
        ):
            self.assertRaises(WireError, ResponseHeadParser().feed, data)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.binary(max_size=30), max_size=5), st.booleans())
    def test_anyBytes(self, pieces: list[bytes], begun: bool) -> None:
        """No bytes raise anything but WireError."""
        parser = ResponseHeadParser()
        try:
            if begun:
                parser.feed(b"HTTP/1.1 200 OK\r\n")
            for piece in pieces:
                parser.feed(piece)
        except WireError:
            pass
