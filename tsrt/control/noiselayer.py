"""
Noise between a transport and a protocol.

L{NoiseLayer} is a protocol to what carries the records and a transport to what
speaks inside, as C{twisted.protocols.tls} is for TLS.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProducer,
    IProtocol,
    IPushProducer,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.noise import IKInitiator
from tsrt.errors import (
    ClientTooOld,
    ControlError,
    ControlProtocolError,
    DecryptError,
    WireError,
    WrongControlKey,
)
from tsrt.wire.controlframe import (
    MAX_NONCE,
    TYPE_ERROR,
    TYPE_RECORD,
    TYPE_RESPONSE,
    EarlyPayload,
    RecordSplitter,
    encodeRecords,
    parseError,
    splitPlaintext,
)

_log = Logger(namespace="tsrt.control")

LARGEST_HELD = 64 * 1024
"""Bytes kept for a protocol that is not attached yet."""

_LONGEST_ERROR = 200


class HandshakeRefused(ControlProtocolError):
    """
    The server ended the handshake without proving anything.

    That is what a server does that cannot read our message because it has
    another key by now; it is also what a cut connection looks like.
    """


@implementer(ITransport, IConsumer, IPushProducer)
class NoiseLayer(Protocol):
    """
    The client's end of a control connection.

    @ivar handshake: fires with this object when records may flow.  It fails
        with L{WrongControlKey} when the server does not own the key it
        published, and with L{ControlProtocolError} for anything else that is
        no handshake.
    """

    disconnecting = False

    def __init__(
        self, initiator: IKInitiator, *, where: str = "the control server"
    ) -> None:
        """
        @param initiator: our side of the handshake, whose message has already
            been sent.
        @param where: whom we talk to, for messages.
        """
        self._initiator: IKInitiator | None = initiator
        self._where = where
        self._splitter = RecordSplitter()
        self._early = EarlyPayload()
        self._send: CounterCipher | None = None
        self._receive: CounterCipher | None = None
        self._sendCounter = 0
        self._receiveCounter = 0
        self._wrapped: IProtocol | None = None
        self._held = bytearray()
        self._error: ControlError | None = None
        self._connected = True
        self.handshakeHash = b""
        self.handshake: Deferred[NoiseLayer] = Deferred(
            lambda _: self.abortConnection()
        )

    def attach(self, protocol: IProtocol) -> None:
        """
        Let C{protocol} speak inside.

        What the server has said since the handshake is delivered to it.
        """
        self._wrapped = protocol
        protocol.makeConnection(self)
        held, self._held = bytes(self._held), bytearray()
        if held and self._error is None:
            protocol.dataReceived(held)

    # -- a protocol, outwards ------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the server: its part of the handshake, then records."""
        if self._error is not None:
            return
        try:
            for kind, payload in self._splitter.feed(data):
                if self._receive is None:
                    self._finishHandshake(kind, payload)
                else:
                    self._recordReceived(kind, payload)
                if self._error is not None:
                    return
        except ControlError as error:
            self._fatal(error)
        except WireError as error:
            self._fatal(ControlProtocolError(f"{self._where}: {error}"))

    def _finishHandshake(self, kind: int, payload: bytes) -> None:
        initiator = self._initiator
        if kind == TYPE_ERROR:
            raise self._serverError(payload)
        if kind != TYPE_RESPONSE or initiator is None:
            raise ControlProtocolError(
                f"{self._where} answered the handshake with a message of type {kind}"
            )
        self._initiator = None
        try:
            send, receive, self.handshakeHash = initiator.finishPayload(payload)
        except DecryptError:
            raise WrongControlKey(
                f"{self._where} does not own the key that the control server published"
            ) from None
        self._send = CounterCipher(send, bigEndian=True)
        self._receive = CounterCipher(receive, bigEndian=True)
        self.handshake.callback(self)

    def _recordReceived(self, kind: int, payload: bytes) -> None:
        if kind == TYPE_ERROR:
            raise self._serverError(payload)
        if kind != TYPE_RECORD or self._receive is None:
            raise ControlProtocolError(f"{self._where} sent a message of type {kind}")
        if self._receiveCounter > MAX_NONCE:
            raise ControlProtocolError("the control connection is used up")
        try:
            plaintext = self._receive.open(self._receiveCounter, payload)
        except DecryptError:
            raise ControlProtocolError(
                f"{self._where} sent a record that does not decrypt"
            ) from None
        self._receiveCounter += 1
        if not self._early.done:
            plaintext = self._early.feed(plaintext)
        if not plaintext:
            return
        if self._wrapped is not None:
            self._wrapped.dataReceived(plaintext)
        else:
            self._held += plaintext
            if len(self._held) > LARGEST_HELD:
                raise ControlProtocolError("nobody reads the control connection")

    def _serverError(self, payload: bytes) -> ControlError:
        # Anybody on the way can forge this message.
        text = parseError(payload[:_LONGEST_ERROR])
        printable = "".join(c if c.isprintable() else "?" for c in text)
        message = f'{self._where} says: "{printable}"'
        if "unsupported client version" in text.lower():
            return ClientTooOld(message)
        return ControlProtocolError(message)

    def _fatal(self, error: ControlError) -> None:
        """The connection is beyond rescue."""
        self._error = error
        self.abortConnection()
        if self._receive is None and not self.handshake.called:
            self.handshake.errback(error)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """What carried the records is gone."""
        if not self._connected:
            return
        self._connected = False
        self.transport = None
        if self._error is not None:
            reason = Failure(self._error)
        if self._receive is None and not self.handshake.called:
            why = "" if reason is None else f" ({reason.getErrorMessage()})"
            self.handshake.errback(
                HandshakeRefused(
                    f"{self._where} closed the connection during the Noise "
                    f"handshake{why}",
                    advice="Perhaps a proxy cut it, or the server does not have the "
                    "key that it publishes.",
                )
            )
        self._send = self._receive = None
        self._held.clear()
        wrapped, self._wrapped = self._wrapped, None
        if wrapped is not None and reason is not None:
            wrapped.connectionLost(reason)

    # -- a transport, inwards --------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Seal C{data} and send it; nothing happens once the connection ended."""
        transport = self.transport
        cipher = self._send
        if transport is None or cipher is None or self._error is not None:
            return
        sealed = []
        for piece in splitPlaintext(data):
            if self._sendCounter > MAX_NONCE:
                self._fatal(ControlProtocolError("the control connection is used up"))
                return
            sealed.append(cipher.seal(self._sendCounter, piece))
            self._sendCounter += 1
        if sealed:
            transport.write(encodeRecords(sealed))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Seal and send several pieces at once."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once what was written is sent."""
        self.disconnecting = True
        if self.transport is not None:
            self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Close at once."""
        self.disconnecting = True
        transport = self.transport
        if transport is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()

    def getPeer(self) -> IAddress:
        """The address of the other end of what carries the records."""
        return self._carrier().getPeer()

    def getHost(self) -> IAddress:
        """Our address of what carries the records."""
        return self._carrier().getHost()

    def _carrier(self) -> ITransport:
        if self.transport is None:
            raise ControlProtocolError("the control connection is closed")
        return self.transport

    # -- back-pressure passes through, both ways --------------------------------------

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """See L{IConsumer}: records are as long as what is in them."""
        if self.transport is None:
            producer.stopProducing()
        else:
            IConsumer(self.transport).registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        if self.transport is not None:
            IConsumer(self.transport).unregisterProducer()

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        if self.transport is not None:
            IPushProducer(self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        if self.transport is not None:
            IPushProducer(self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """See L{IPushProducer}."""
        self.loseConnection()
