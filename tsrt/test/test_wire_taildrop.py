"""
Tests for L{tsrt.wire.taildrop} and L{tsrt.wire.peerapi}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.test.test_wire_derp import pieces
from tsrt.wire.peerapi import PREFERRED_TRIES, preferredPort
from tsrt.wire.taildrop import BLOCK_SIZE, MAX_OBJECT, BlockHash, BlockHashSplitter

BLOCKS = [BlockHash.of(bytes(BLOCK_SIZE)), BlockHash.of(b"abc")]
STREAM = b"".join(block.encode() for block in BLOCKS)


class BlockHashTests(SynchronousTestCase):
    """L{BlockHash}."""

    def test_sha256(self) -> None:
        """The checksum of "abc" is that of FIPS 180."""
        self.assertEqual(
            BLOCKS[1],
            BlockHash(
                bytes.fromhex(
                    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
                ),
                3,
            ),
        )

    def test_rejected(self) -> None:
        """Other algorithms, digits and sizes."""
        good = BLOCKS[1].encode()
        self.assertEqual(BlockHash.decode(good), BLOCKS[1])
        for data in (
            b"",
            b"[]",
            b"[" * 100000,
            good.replace(b"sha256", b"sha512"),
            good.replace(b"ba78", b"BA78"),
            good.replace(b"ba78", b"78"),
            good.replace(b'"size":3', b'"size":0'),
            good.replace(b'"size":3', b'"size":65537'),
            good.replace(b'"size":3', b'"size":3.0'),
            good.replace(b'"size":3', b'"size":true'),
            good.replace(b'"size":3', b'"sice":3'),
            good.replace(b'"checksum"', b'"other"'),
        ):
            self.assertRaises(WireError, BlockHash.decode, data)


class SplitterTests(SynchronousTestCase):
    """L{BlockHashSplitter}."""

    @given(st.lists(st.integers(0, 400), max_size=8))
    @settings(max_examples=50, deadline=None)
    def test_anyPieces(self, cuts: list[int]) -> None:
        """However a stream is cut, the same hashes come out."""
        splitter = BlockHashSplitter()
        found = [
            block for piece in pieces(STREAM, cuts) for block in splitter.feed(piece)
        ]
        self.assertEqual(found, BLOCKS)
        splitter.finish()

    def test_spacing(self) -> None:
        """White space between objects, or none, makes no difference."""
        for between in (b"", b"\n", b" \r\n\t"):
            stream = between.join(
                [b"", *(block.encode().strip() for block in BLOCKS), b""]
            )
            splitter = BlockHashSplitter()
            self.assertEqual(splitter.feed(stream), BLOCKS)
            splitter.finish()

    def test_endsAmid(self) -> None:
        """A stream that ends amid an object is an error."""
        splitter = BlockHashSplitter()
        self.assertEqual(splitter.feed(STREAM[:-3]), BLOCKS[:1])
        self.assertRaises(WireError, splitter.finish)

    def test_bounded(self) -> None:
        """What never ends is given up."""
        splitter = BlockHashSplitter()
        self.assertEqual(splitter.feed(b"x" * MAX_OBJECT), [])
        self.assertRaises(WireError, splitter.feed, b"x")

    @given(st.lists(st.binary(max_size=40), max_size=5))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, stream: list[bytes]) -> None:
        """Any stream gives hashes or raises L{WireError}."""
        splitter = BlockHashSplitter()
        try:
            for piece in stream:
                splitter.feed(piece)
            splitter.finish()
        except WireError:
            pass


class PreferredPortTests(SynchronousTestCase):
    """L{preferredPort}."""

    @given(
        st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
        st.integers(0, PREFERRED_TRIES - 1),
    )
    @settings(max_examples=50, deadline=None)
    def test_range(self, address: bytes, attempt: int) -> None:
        """The port lies in the upper half, whatever the address."""
        self.assertIn(preferredPort(address, attempt), range(0x8000, 0x10000))

    def test_wraps(self) -> None:
        """Counting the tries up wraps around within a byte."""
        self.assertEqual(
            preferredPort(parseAddress("100.255.1.2"), 1),
            preferredPort(parseAddress("100.0.1.2"), 0),
        )
