"""
Tests for L{tsrt.wire.controlframe}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import WireError
from tsrt.keys import ChallengePublic
from tsrt.test.test_wire_derp import pieces
from tsrt.wire import controlframe
from tsrt.wire.controlframe import (
    EarlyPayload,
    MapFrameSplitter,
    RecordSplitter,
    encodeEarlyPayload,
    encodeError,
    encodeMapFrame,
    encodeRecord,
    encodeRecords,
    parseError,
    splitPlaintext,
)

CHALLENGE = ChallengePublic(bytes(range(32)))
cutPlaces = st.lists(st.integers(0, 1000), max_size=8)


def early(document: bytes) -> bytes:
    """An early payload with this JSON document."""
    return b"\xff\xff\xffTS" + len(document).to_bytes(4, "big") + document


class RecordTests(SynchronousTestCase):
    """Records."""

    @given(st.lists(st.binary(max_size=60), max_size=6), cutPlaces)
    @settings(max_examples=100, deadline=None)
    def test_anyPieces(self, contents: list[bytes], cuts: list[int]) -> None:
        """However a stream is cut, the same records come out."""
        splitter = RecordSplitter()
        found = [
            record
            for piece in pieces(encodeRecords(contents), cuts)
            for record in splitter.feed(piece)
        ]
        self.assertEqual(
            found, [(controlframe.TYPE_RECORD, content) for content in contents]
        )

    @given(st.lists(st.binary(max_size=40), max_size=6))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, stream: list[bytes]) -> None:
        """Any stream gives messages or raises L{WireError}."""
        splitter = RecordSplitter()
        try:
            for piece in stream:
                splitter.feed(piece)
        except WireError:
            pass

    def test_T_capsRecords(self) -> None:
        """4096 bytes in all are the largest record, exactly."""
        largest = bytes(controlframe.MAX_CIPHERTEXT)
        record = encodeRecord(largest)
        self.assertEqual(len(record), 4096)
        self.assertEqual(RecordSplitter().feed(record), [(4, largest)])
        self.assertRaises(WireError, RecordSplitter().feed, b"\4\x0f\xfe")

    def test_splitPlaintext(self) -> None:
        """A long write is cut into pieces of 4077 bytes."""
        data = bytes(range(256)) * 40
        parts = splitPlaintext(data)
        self.assertEqual(list(map(len, parts)), [4077, 4077, 2086])
        self.assertEqual(b"".join(parts), data)
        self.assertEqual(splitPlaintext(b""), [])
        self.assertEqual(splitPlaintext(bytes(4077)), [bytes(4077)])

    def test_errors(self) -> None:
        """An error comes through the same splitter, and its text out of it."""
        [(kind, payload)] = RecordSplitter().feed(encodeError("no: ü"))
        self.assertEqual(kind, controlframe.TYPE_ERROR)
        self.assertEqual(parseError(payload), "no: ü")
        self.assertEqual(parseError(b"\xff"), "\ufffd")

    def test_longError(self) -> None:
        """An error is cut to what a message can hold."""
        [(_, payload)] = RecordSplitter().feed(encodeError("x" * 10000))
        self.assertEqual(len(payload), controlframe.MAX_CIPHERTEXT)


class EarlyPayloadTests(SynchronousTestCase):
    """L{EarlyPayload}."""

    @given(st.binary(max_size=40), cutPlaces)
    @settings(max_examples=100, deadline=None)
    def test_present(self, rest: bytes, cuts: list[int]) -> None:
        """The payload is taken off, however the stream is cut."""
        parser = EarlyPayload()
        out = b"".join(
            map(parser.feed, pieces(encodeEarlyPayload(CHALLENGE) + rest, cuts))
        )
        self.assertEqual(out, rest)
        self.assertTrue(parser.done)
        self.assertEqual(parser.challenge, CHALLENGE)

    @given(st.binary(max_size=40), cutPlaces)
    @settings(max_examples=100, deadline=None)
    def test_absent(self, stream: bytes, cuts: list[int]) -> None:
        """A stream without one comes out whole."""
        stream = b"\0\0\x12\4\0\0\0\0\0" + stream
        parser = EarlyPayload()
        self.assertEqual(b"".join(map(parser.feed, pieces(stream, cuts))), stream)
        self.assertTrue(parser.done)
        self.assertIsNone(parser.challenge)

    def test_almostMagic(self) -> None:
        """Bytes that begin like the magic are handed on when they differ."""
        parser = EarlyPayload()
        self.assertEqual(parser.feed(b"\xff\xff\xffT"), b"")
        self.assertFalse(parser.done)
        self.assertEqual(parser.feed(b"R!"), b"\xff\xff\xffTR!")
        self.assertEqual(parser.feed(b"more"), b"more")

    def test_T_capsEarly(self) -> None:
        """More than 10 MiB are refused when the header is there."""
        limit = controlframe.MAX_EARLY_PAYLOAD
        header = b"\xff\xff\xffTS"
        self.assertEqual(EarlyPayload().feed(header + limit.to_bytes(4, "big")), b"")
        self.assertRaises(
            WireError, EarlyPayload().feed, header + (limit + 1).to_bytes(4, "big")
        )

    def test_noChallenge(self) -> None:
        """A payload without a challenge, or with null, is skipped."""
        for document in (b"{}", b'{"nodeKeyChallenge":null}', b'{"other":1}'):
            parser = EarlyPayload()
            self.assertEqual(parser.feed(early(document) + b"x"), b"x")
            self.assertIsNone(parser.challenge)

    @given(st.binary(max_size=40))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, document: bytes) -> None:
        """Any document is read or raises L{WireError}."""
        try:
            EarlyPayload().feed(early(document))
        except WireError:
            pass

    def test_rejected(self) -> None:
        """What is no object, or has no key, is an error."""
        for document in (
            b"",
            b"[]",
            b"[" * 100000,
            b'{"nodeKeyChallenge":1}',
            b'{"nodeKeyChallenge":"chalpub:00"}',
        ):
            self.assertRaises(WireError, EarlyPayload().feed, early(document))


class MapFrameTests(SynchronousTestCase):
    """L{MapFrameSplitter}."""

    @given(st.lists(st.binary(max_size=60), max_size=6), cutPlaces)
    @settings(max_examples=150, deadline=None)
    def test_anyPieces(self, contents: list[bytes], cuts: list[int]) -> None:
        """However a body is cut, the same frames come out."""
        splitter = MapFrameSplitter()
        stream = b"".join(map(encodeMapFrame, contents))
        found = [
            frame for piece in pieces(stream, cuts) for frame in splitter.feed(piece)
        ]
        self.assertEqual(found, contents)

    def test_byteByByte(self) -> None:
        """A frame comes out with its last byte, and not before."""
        frame = encodeMapFrame(b"hello")
        splitter = MapFrameSplitter()
        results = [splitter.feed(frame[at : at + 1]) for at in range(len(frame))]
        self.assertEqual(results, [[]] * (len(frame) - 1) + [[b"hello"]])

    def test_T_capsMapFrames(self) -> None:
        """A frame that is too long is refused when its length is there."""
        splitter = MapFrameSplitter(limit=1000)
        self.assertEqual(splitter.feed((1000).to_bytes(4, "little")), [])
        splitter = MapFrameSplitter(limit=1000)
        self.assertRaises(WireError, splitter.feed, (1001).to_bytes(4, "little"))
        self.assertRaises(WireError, MapFrameSplitter().feed, b"\1\0\0\x10")

    @given(st.lists(st.binary(max_size=40), max_size=6))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, stream: list[bytes]) -> None:
        """Any body gives frames or raises L{WireError}."""
        splitter = MapFrameSplitter(limit=100)
        try:
            for piece in stream:
                splitter.feed(piece)
        except WireError:
            pass
