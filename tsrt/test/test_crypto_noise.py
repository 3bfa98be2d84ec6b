"""
Tests for L{tsrt.crypto.noise}; its bytes are tested against vectors elsewhere.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.crypto.noise import (
    INITIATION_LENGTH,
    RESPONSE_LENGTH,
    IKInitiator,
    IKResponder,
)
from tsrt.errors import DecryptError, WireError
from tsrt.keys import MachineKey, MachinePublic

CLIENT = MachineKey(b"\1" * 32)
SERVER = MachineKey(b"\2" * 32)
OTHER = MachineKey(b"\3" * 32)


def ephemeral(count: int) -> bytes:
    """Bytes that are the same each time, unlike any of the keys."""
    return b"\4" * count


def initiator(server: MachinePublic = SERVER.public()) -> IKInitiator:  # noqa: B008
    """A client that means C{server}."""
    return IKInitiator(CLIENT, server, 130, ephemeral)


class HandshakeTests(SynchronousTestCase):
    """Both roles against each other."""

    def test_bothSidesAgree(self) -> None:
        """The keys of one side are those of the other, crosswise."""
        client, server = initiator(), IKResponder(SERVER, ephemeral)
        self.assertEqual(len(client.initiation()), INITIATION_LENGTH)
        self.assertEqual(server.consume(client.initiation()), 130)
        self.assertEqual(server.clientKey, CLIENT.public())
        response = server.response()
        self.assertEqual(len(response), RESPONSE_LENGTH)
        keys = client.finish(response)
        self.assertEqual(
            keys, (server.receiveKey, server.sendKey, server.handshakeHash)
        )
        self.assertNotEqual(keys[0], keys[1])

    def test_finishAgain(self) -> None:
        """A forged response does not spoil the handshake for the true one."""
        client, server = initiator(), IKResponder(SERVER, ephemeral)
        server.consume(client.initiation())
        response = server.response()
        self.assertRaises(DecryptError, client.finish, response[:-1] + b"\0")
        self.assertEqual(client.finish(response)[0], server.receiveKey)
        self.assertEqual(client.finishPayload(response[3:])[0], server.receiveKey)

    def test_versionIsAuthenticated(self) -> None:
        """A version changed on the way breaks the handshake."""
        message = bytearray(initiator().initiation())
        message[1] ^= 1
        server = IKResponder(SERVER, ephemeral)
        self.assertRaises(DecryptError, server.consume, bytes(message))

    def test_otherServer(self) -> None:
        """An initiation for another server does not open."""
        message = initiator(OTHER.public()).initiation()
        self.assertRaises(DecryptError, IKResponder(SERVER, ephemeral).consume, message)

    def test_impostor(self) -> None:
        """Nobody but the owner of the published key can respond."""
        client = initiator()
        impostor = IKResponder(SERVER, ephemeral)
        impostor.consume(client.initiation())
        impostor.clientKey = OTHER.public()
        self.assertRaises(DecryptError, client.finish, impostor.response())

    def test_everyBitCounts(self) -> None:
        """A bit changed anywhere in an initiation is noticed."""
        message = initiator().initiation()
        for at in range(len(message)):
            changed = bytearray(message)
            changed[at] ^= 1
            self.assertRaises(
                WireError, IKResponder(SERVER, ephemeral).consume, bytes(changed)
            )

    def test_lowOrderServer(self) -> None:
        """A published key of low order is refused before anything is sent."""
        self.assertRaises(DecryptError, initiator, MachinePublic.zero())

    def test_badVersion(self) -> None:
        """A version that does not fit is the caller's error, of a known type."""
        for version in (-1, 1 << 16):
            self.assertRaises(
                WireError, IKInitiator, CLIENT, SERVER.public(), version, ephemeral
            )

    def test_responseFirst(self) -> None:
        """There is nothing to respond to before an initiation."""
        self.assertRaises(WireError, IKResponder(SERVER, ephemeral).response)

    def test_failedConsumeLeavesNoClient(self) -> None:
        """An initiation that does not open names no client."""
        server = IKResponder(SERVER, ephemeral)
        message = bytearray(initiator().initiation())
        message[-1] ^= 1
        self.assertRaises(DecryptError, server.consume, bytes(message))
        self.assertTrue(server.clientKey.isZero())
        self.assertRaises(WireError, server.response)


class FormTests(SynchronousTestCase):
    """Messages that are none."""

    def test_T_capsInitiation(self) -> None:
        """Wrong size, type and length have the texts that clients show."""
        message = initiator().initiation()
        server = IKResponder(SERVER, ephemeral)
        for changed, text in (
            (message + b"\0", "wrong handshake initiation size"),
            (message[:2] + b"\2" + message[3:], "unexpected handshake message type"),
            (message[:4] + b"\1" + message[5:], "wrong handshake initiation length"),
        ):
            error = self.assertRaises(WireError, server.consume, changed)
            self.assertEqual(str(error), text)

    def test_T_capsResponse(self) -> None:
        """A response has one type and one length."""
        client, server = initiator(), IKResponder(SERVER, ephemeral)
        server.consume(client.initiation())
        response = server.response()
        for changed in (
            response + b"\0",
            response[:-1],
            b"\3" + response[1:],
            response[:2] + b"\x31" + response[3:],
            b"",
        ):
            error = self.assertRaises(WireError, client.finish, changed)
            self.assertNotIsInstance(error, DecryptError)
        self.assertRaises(WireError, client.finishPayload, response)

    @given(st.binary(max_size=120), st.binary(min_size=96, max_size=96))
    @settings(max_examples=100, deadline=None)
    def test_anyBytes(self, data: bytes, payload: bytes) -> None:
        """Bytes that nobody made raise L{WireError} and nothing else."""
        server, client = IKResponder(SERVER, ephemeral), initiator()
        self.assertRaises(WireError, server.consume, data)
        self.assertRaises(WireError, server.consume, b"\0\x82\1\0\x60" + payload)
        self.assertRaises(WireError, client.finish, data)
        self.assertRaises(WireError, client.finish, b"\2\0\x30" + payload[:48])
