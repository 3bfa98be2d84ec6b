"""
Tests for L{tsrt.tunnel.handshake}, byte for byte against published vectors.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto.hashes import x25519
from tsrt.errors import DecryptError, WireError
from tsrt.test.tunnelpair import littleEndian, vector
from tsrt.tunnel.cookies import CookieJar
from tsrt.tunnel.handshake import Initiation, ReceivedInitiation, StaticKey

_VECTOR = vector("wireguard_initiation")
_KEYS = vector("wireguard_session")


def _bytes(name: str) -> bytes:
    """A field of the vector."""
    return bytes.fromhex(_VECTOR[name])


INITIATOR = StaticKey(_bytes("initiator_private"))
RESPONDER = StaticKey(_bytes("responder_private"))
SHARED = x25519(INITIATOR.private, RESPONDER.public)
INITIATION = _bytes("initiation")
RESPONSE = _bytes("response")
# Points of low order, with which every secret is zero.
LOW_ORDER = [bytes(32), b"\x01" + bytes(31)]


def begin() -> Initiation:
    """The initiation of the vector, half open."""
    return Initiation(
        INITIATOR,
        RESPONDER.public,
        SHARED,
        index=littleEndian(int(_VECTOR["sender_index"])),
        timestamp=_bytes("timestamp"),
        ephemeral=_bytes("initiator_ephemeral_private"),
    )


class VectorTests(SynchronousTestCase):
    """
    Both sides of the handshake produce the published bytes.
    """

    def test_publicKeys(self) -> None:
        """The static keys are those of the vector."""
        self.assertEqual(INITIATOR.public, _bytes("initiator_public"))
        self.assertEqual(RESPONDER.public, _bytes("responder_public"))

    def test_initiation(self) -> None:
        """The initiation, MACs included, has the published bytes."""
        message = CookieJar(RESPONDER.public).sign(begin().body, 0.0)
        self.assertEqual(message.hex(), INITIATION.hex())

    def test_receivedInitiation(self) -> None:
        """The responder finds the initiator's key, index and timestamp in it."""
        received = ReceivedInitiation(RESPONDER, INITIATION)
        self.assertEqual(received.public, INITIATOR.public)
        self.assertEqual(received.index, bytes.fromhex("44332211"))
        self.assertEqual(received.authenticate(SHARED), _bytes("timestamp"))

    def test_response(self) -> None:
        """The response has the published bytes, and yields the published keys."""
        received = ReceivedInitiation(RESPONDER, INITIATION)
        received.authenticate(SHARED)
        body, keys = received.respond(
            littleEndian(int(_VECTOR["responder_index"])),
            _bytes("responder_ephemeral_private"),
        )
        message = CookieJar(INITIATOR.public).sign(body, 0.0)
        self.assertEqual(message.hex(), RESPONSE.hex())
        self.assertEqual(keys.send.hex(), _KEYS["responder_send_key"])
        self.assertEqual(keys.receive.hex(), _KEYS["initiator_send_key"])

    def test_finish(self) -> None:
        """The initiator takes the published response and has the same keys."""
        keys = begin().finish(RESPONSE)
        self.assertEqual(keys.send.hex(), _KEYS["initiator_send_key"])
        self.assertEqual(keys.receive.hex(), _KEYS["responder_send_key"])


class RefusalTests(SynchronousTestCase):
    """
    What is not the other side's message is refused.
    """

    def test_forgedResponseSpoilsNothing(self) -> None:
        """After a forged response the true one still completes the handshake."""
        initiation = begin()
        for position in (12, 43, 44, 59):
            forged = bytearray(RESPONSE)
            forged[position] ^= 1
            self.assertRaises(DecryptError, initiation.finish, bytes(forged))
        keys = initiation.finish(RESPONSE)
        self.assertEqual(keys.send.hex(), _KEYS["initiator_send_key"])

    def test_initiationForAnother(self) -> None:
        """An initiation to somebody else does not open."""
        self.assertRaises(DecryptError, ReceivedInitiation, INITIATOR, INITIATION)

    def test_claimedKeyIsNotEnough(self) -> None:
        """Who only knows a peer's public key cannot authenticate as it."""
        mallory = StaticKey(bytes(range(32)))
        forged = Initiation(
            StaticKeyOf(INITIATOR.public, mallory.private),
            RESPONDER.public,
            x25519(mallory.private, RESPONDER.public),
            index=bytes(4),
            timestamp=_bytes("timestamp"),
            ephemeral=bytes(range(1, 33)),
        )
        received = ReceivedInitiation(RESPONDER, forged.body + bytes(32))
        self.assertEqual(received.public, INITIATOR.public)
        self.assertRaises(DecryptError, received.authenticate, SHARED)

    def test_changedTimestamp(self) -> None:
        """A timestamp that was tampered with does not open."""
        forged = bytearray(INITIATION)
        forged[90] ^= 0x80
        received = ReceivedInitiation(RESPONDER, bytes(forged))
        self.assertRaises(DecryptError, received.authenticate, SHARED)

    def test_lowOrderPoints(self) -> None:
        """Ephemeral keys that make every secret zero are refused."""
        for point in LOW_ORDER:
            message = INITIATION[:8] + point + INITIATION[40:]
            self.assertRaises(DecryptError, ReceivedInitiation, RESPONDER, message)
            response = RESPONSE[:12] + point + RESPONSE[44:]
            self.assertRaises(DecryptError, begin().finish, response)

    def test_wrongSizes(self) -> None:
        """Messages that are too short or too long are no handshake messages."""
        for size in (0, 4, 147, 149):
            message = INITIATION.ljust(size, b"\0")[:size]
            self.assertRaises(WireError, ReceivedInitiation, RESPONDER, message)
        for size in (0, 4, 91, 93):
            message = RESPONSE.ljust(size, b"\0")[:size]
            self.assertRaises(WireError, begin().finish, message)

    @settings(max_examples=60, deadline=None)
    @given(st.one_of(st.binary(max_size=200), st.binary(min_size=148, max_size=148)))
    def test_anyBytesAsInitiation(self, data: bytes) -> None:
        """Any bytes raise only L{WireError}."""
        try:
            ReceivedInitiation(RESPONDER, data).authenticate(SHARED)
        except WireError:
            return
        self.fail("random bytes cannot be an initiation")

    @settings(max_examples=60, deadline=None)
    @given(st.one_of(st.binary(max_size=200), st.binary(min_size=92, max_size=92)))
    def test_anyBytesAsResponse(self, data: bytes) -> None:
        """Any bytes raise only L{WireError}."""
        self.assertRaises(WireError, begin().finish, data)

    def test_secretsAreNotShown(self) -> None:
        """No secret is in the C{repr} of what holds it."""
        keys = begin().finish(RESPONSE)
        for holder in (keys, INITIATOR, begin()):
            for secret in (keys.send, keys.receive, INITIATOR.private):
                self.assertNotIn(secret.hex(), repr(holder))
                self.assertNotIn(repr(secret), repr(holder))


class StaticKeyOf(StaticKey):
    """Somebody's public key with another's private one: a liar's identity."""

    __slots__ = ()

    def __init__(self, public: bytes, private: bytes) -> None:
        super().__init__(private)
        self.public = public
