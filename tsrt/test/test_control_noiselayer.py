"""
Tests for L{tsrt.control.noiselayer}.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.control.noiselayer import LARGEST_HELD, HandshakeRefused, NoiseLayer
from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.noise import IKInitiator, IKResponder
from tsrt.errors import ClientTooOld, ControlProtocolError, WrongControlKey
from tsrt.keys import ChallengePublic, MachineKey
from tsrt.test.controlpeer import fixedBytes
from tsrt.wire.controlframe import (
    EARLY_MAGIC,
    MAX_FRAME,
    MAX_PLAINTEXT,
    RecordSplitter,
    encodeEarlyPayload,
    encodeError,
    encodeRecord,
)

VECTOR = json.loads(
    (Path(__file__).parent / "vectors" / "vectors.json").read_text(encoding="utf-8")
)["vectors"]["noise_ik_control"]


def vectorBytes(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


class Inner(Protocol):
    """What speaks inside of the layer."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Failure] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.lost.append(reason)


class AbortableTransport(StringTransport):
    """A transport that remembers how it was closed."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class VectorTests(SynchronousTestCase):
    """The layer against worked bytes of the protocol."""

    def setUp(self) -> None:
        initiator = IKInitiator(
            MachineKey(vectorBytes("machine_private")),
            MachineKey(vectorBytes("control_private")).public(),
            VECTOR["protocol_version"],
            lambda count: vectorBytes("client_ephemeral_private")[:count],
        )
        self.assertEqual(initiator.initiation(), vectorBytes("initiation"))
        self.layer = NoiseLayer(initiator)
        self.transport = AbortableTransport()
        self.layer.makeConnection(self.transport)
        self.inner = Inner()
        self.layer.handshake.addCallback(lambda layer: layer.attach(self.inner))
        self.layer.dataReceived(vectorBytes("response"))
        self.successResultOf(self.layer.handshake)

    def test_handshakeHash(self) -> None:
        """The handshake ends with the expected hash."""
        self.assertEqual(self.layer.handshakeHash, vectorBytes("handshake_hash"))

    def test_recordsOut(self) -> None:
        """Records number 0, 1 and 256 are sealed as they must be."""
        records = {
            record["nonce_counter"]: record for record in VECTOR["client_records"]
        }
        for counter in (0, 1):
            self.layer.write(bytes.fromhex(records[counter]["plaintext"]))
            self.assertEqual(
                self.transport.value(), bytes.fromhex(records[counter]["record"])
            )
            self.transport.clear()
        for _ in range(254):
            self.layer.write(b"x")
        last = RecordSplitter().feed(self.transport.value())[-1]
        opened = CounterCipher(
            vectorBytes("client_to_server_key"), bigEndian=True
        ).open(255, last[1])
        self.assertEqual(opened, b"x")

    def test_T_trap4_earlyPayloadIsSkipped(self) -> None:
        """The early payload of the vector never reaches what is inside."""
        record = bytes.fromhex(VECTOR["server_records"][0]["record"])
        self.layer.dataReceived(record)
        self.assertEqual(self.inner.data, b"")
        cipher = CounterCipher(vectorBytes("server_to_client_key"), bigEndian=True)
        self.layer.dataReceived(encodeRecord(cipher.seal(1, b"settings")))
        self.assertEqual(self.inner.data, b"settings")


class NoiseLayerTests(SynchronousTestCase):
    """Records, errors and flow control."""

    def setUp(self) -> None:
        self.serverKey = MachineKey.generate(fixedBytes(1))
        self.initiator = IKInitiator(
            MachineKey.generate(fixedBytes(2)),
            self.serverKey.public(),
            130,
            fixedBytes(3),
        )
        self.responder = IKResponder(self.serverKey, fixedBytes(4))
        self.responder.consume(self.initiator.initiation())
        self.response = self.responder.response()
        self.seal = CounterCipher(self.responder.sendKey, bigEndian=True)
        self.open = CounterCipher(self.responder.receiveKey, bigEndian=True)
        self.sealed = 0
        self.layer = NoiseLayer(self.initiator, where="control")
        self.transport = AbortableTransport()
        self.layer.makeConnection(self.transport)
        self.inner = Inner()

    def record(self, plaintext: bytes) -> bytes:
        sealed = self.seal.seal(self.sealed, plaintext)
        self.sealed += 1
        return encodeRecord(sealed)

    def establish(self) -> None:
        self.layer.handshake.addCallback(lambda layer: layer.attach(self.inner))
        self.layer.dataReceived(self.response)
        self.successResultOf(self.layer.handshake)

    def opened(self) -> list[bytes]:
        messages = RecordSplitter().feed(self.transport.value())
        return [
            self.open.open(number, payload)
            for number, (_, payload) in enumerate(messages)
        ]

    def test_interfaces(self) -> None:
        """Inwards the layer is a transport, a consumer and a producer."""
        for interface in (ITransport, IConsumer, IPushProducer):
            verifyObject(interface, self.layer)

    def test_bytewise(self) -> None:
        """Handshake and records may come in any pieces."""
        self.layer.handshake.addCallback(lambda layer: layer.attach(self.inner))
        for byte in self.response + self.record(b"") + self.record(b"abcdefghijk"):
            self.layer.dataReceived(bytes([byte]))
        self.assertEqual(self.inner.data, b"abcdefghijk")

    def test_inOnePiece(self) -> None:
        """What follows the handshake in one segment is delivered behind it."""
        early = encodeEarlyPayload(ChallengePublic(bytes(range(32))))
        self.layer.handshake.addCallback(lambda layer: layer.attach(self.inner))
        self.layer.dataReceived(
            self.response + self.record(early + b"ab") + self.record(b"cd")
        )
        self.assertEqual(self.inner.data, b"abcd")

    def test_earlyPayloadAcrossRecords(self) -> None:
        """The early payload may be cut anywhere."""
        self.establish()
        for byte in encodeEarlyPayload(ChallengePublic(bytes(range(32)))) + b"rest":
            self.layer.dataReceived(self.record(bytes([byte])))
        self.assertEqual(self.inner.data, b"rest")

    def test_T_caps_earlyPayload(self) -> None:
        """An early payload that claims gigabytes ends the connection."""
        self.establish()
        self.layer.dataReceived(self.record(EARLY_MAGIC + b"\xff\xff\xff\xff"))
        self.assertTrue(self.transport.aborted)

    def test_attachLater(self) -> None:
        """What came before somebody was attached is kept, up to a limit."""
        self.layer.dataReceived(self.response + self.record(b"0123456789"))
        layer = self.successResultOf(self.layer.handshake)
        layer.attach(self.inner)
        self.assertEqual(self.inner.data, b"0123456789")

    def test_T_caps_nobodyAttached(self) -> None:
        """A server that floods a connection nobody reads is cut off."""
        self.layer.dataReceived(self.response)
        self.successResultOf(self.layer.handshake)
        for _ in range(LARGEST_HELD // 4000 + 1):
            self.layer.dataReceived(self.record(b"x" * 4000))
        self.assertTrue(self.transport.aborted)

    def test_largeWrites(self) -> None:
        """A large write is cut into records of the largest size."""
        self.establish()
        data = bytes(range(256)) * 40
        self.layer.writeSequence([data[:5000], data[5000:]])
        pieces = self.opened()
        self.assertEqual([len(piece) for piece in pieces], [MAX_PLAINTEXT, 4077, 2086])
        self.assertEqual(b"".join(pieces), data)
        first = RecordSplitter()
        self.assertEqual(len(first.feed(self.transport.value()[:MAX_FRAME])), 1)

    def test_emptyWrite(self) -> None:
        """Writing nothing sends nothing."""
        self.establish()
        self.layer.write(b"")
        self.assertEqual(self.transport.value(), b"")

    def test_writeBeforeHandshake(self) -> None:
        """Nothing can be sealed before the handshake, so nothing is sent."""
        self.layer.write(b"too early")
        self.assertEqual(self.transport.value(), b"")

    def test_wrongControlKey(self) -> None:
        """A server with another key than it published is found out."""
        impostor = MachineKey.generate(fixedBytes(9))
        other = IKInitiator(
            MachineKey.generate(fixedBytes(2)), impostor.public(), 130, fixedBytes(3)
        )
        responder = IKResponder(impostor, fixedBytes(4))
        responder.consume(other.initiation())
        self.layer.dataReceived(responder.response())
        failure = self.failureResultOf(self.layer.handshake, WrongControlKey)
        self.assertTrue(failure.value.isPermanent)
        self.assertTrue(self.transport.aborted)

    def test_serverError(self) -> None:
        """The error message of a server is passed on in printable form."""
        self.layer.dataReceived(encodeError("wrong handshake\x1b[31m size" + "x" * 999))
        failure = self.failureResultOf(self.layer.handshake, ControlProtocolError)
        self.assertIn('control says: "wrong handshake?[31m size', str(failure.value))
        self.assertLess(len(str(failure.value)), 300)

    def test_serverErrorAboutVersion(self) -> None:
        """A server that refuses our version is told apart."""
        self.layer.dataReceived(encodeError("unsupported client version: v1.2 (9)"))
        self.failureResultOf(self.layer.handshake, ClientTooOld)

    def test_T_caps_responseLength(self) -> None:
        """A Noise response of another length than 48 bytes is refused."""
        for length in (0, 47, 49, 4093):
            self.setUp()
            self.layer.dataReceived(b"\x02" + length.to_bytes(2, "big") + bytes(length))
            self.failureResultOf(self.layer.handshake, ControlProtocolError)

    def test_wrongTypeInHandshake(self) -> None:
        """A record instead of the handshake is refused."""
        self.layer.dataReceived(encodeRecord(bytes(48)))
        self.failureResultOf(self.layer.handshake, ControlProtocolError)

    def test_closedInHandshake(self) -> None:
        """A server that closes without a word has perhaps another key."""
        self.layer.connectionLost(Failure(ConnectionDone()))
        failure = self.failureResultOf(self.layer.handshake, HandshakeRefused)
        self.assertFalse(failure.value.isPermanent)

    def test_cancelHandshake(self) -> None:
        """Cancelling the handshake closes the connection."""
        self.layer.handshake.cancel()
        self.failureResultOf(self.layer.handshake, CancelledError)
        self.assertTrue(self.transport.aborted)
        self.layer.connectionLost(Failure(ConnectionDone()))

    def fatal(self, data: bytes) -> ControlProtocolError:
        self.establish()
        self.layer.dataReceived(data)
        self.assertTrue(self.transport.aborted)
        self.layer.dataReceived(self.record(b"ignored"))
        self.assertEqual(self.inner.data, b"")
        self.layer.connectionLost(Failure(ConnectionDone()))
        [reason] = self.inner.lost
        assert isinstance(reason.value, ControlProtocolError)
        return reason.value

    def test_badRecord(self) -> None:
        """A record that does not decrypt is fatal, and said to be the cause."""
        error = self.fatal(encodeRecord(bytes(40)))
        self.assertIn("does not decrypt", str(error))

    def test_replayedRecord(self) -> None:
        """A record that comes twice is fatal."""
        self.establish()
        record = self.record(b"settings")
        self.layer.dataReceived(record + record)
        self.assertTrue(self.transport.aborted)
        self.assertEqual(self.inner.data, b"settings")

    def test_T_caps_oversizeRecord(self) -> None:
        """A record longer than 4096 bytes is fatal before it is whole."""
        self.fatal(b"\x04" + (4094).to_bytes(2, "big"))

    def test_largestRecord(self) -> None:
        """A record of exactly 4096 bytes is fine."""
        self.establish()
        record = self.record(b"x" * MAX_PLAINTEXT)
        self.assertEqual(len(record), MAX_FRAME)
        self.layer.dataReceived(record)
        self.assertEqual(self.inner.data, b"x" * MAX_PLAINTEXT)

    def test_wrongTypeLater(self) -> None:
        """A handshake message among the records is fatal."""
        self.fatal(b"\x02" + (48).to_bytes(2, "big") + bytes(48))

    def test_errorLater(self) -> None:
        """An error message among the records is fatal and passed on."""
        self.assertIn("go away", str(self.fatal(encodeError("go away"))))

    def test_connectionLost(self) -> None:
        """The end of the carrier is the end of what is inside."""
        self.establish()
        self.layer.connectionLost(Failure(ConnectionDone()))
        self.layer.connectionLost(Failure(ConnectionDone()))
        [reason] = self.inner.lost
        reason.trap(ConnectionDone)
        self.layer.write(b"nothing happens")
        self.layer.loseConnection()
        self.layer.abortConnection()
        self.assertEqual(self.transport.value(), b"")

    def test_backPressure(self) -> None:
        """Producers and pauses pass through to the carrier, both ways."""
        self.establish()
        producer = StringTransport()
        self.layer.registerProducer(producer, True)
        self.assertIs(self.transport.producer, producer)
        self.layer.unregisterProducer()
        self.assertIsNone(self.transport.producer)
        self.layer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.layer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.layer.stopProducing()
        self.assertTrue(self.transport.disconnecting)

    def test_addresses(self) -> None:
        """The addresses are the carrier's."""
        self.assertEqual(self.layer.getPeer(), self.transport.getPeer())
        self.assertEqual(self.layer.getHost(), self.transport.getHost())
