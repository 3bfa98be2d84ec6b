"""
One machine's control connection: HTTP/2 inside Noise records.

It takes a connection over from the HTTP/1.1 front, answers the handshake, sends
the early payload and from then on carries the bytes of an L{H2Server}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.noise import IKResponder
from tsrt.errors import DecryptError, WireError
from tsrt.keys import ChallengePublic, MachineKey, MachinePublic, NodeKey
from tsrt.testing.control.h2server import H2Server, ServerStream
from tsrt.wire import controlframe

_log = Logger(namespace="tsrt.testing.control")

PROTOCOL = "tailscale-control-protocol"
"""The name of the protocol in the C{Upgrade} header."""

START_TIMEOUT = 30.0
"""Seconds for the peer to begin with HTTP/2 after the handshake."""

_SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: " + PROTOCOL.encode("ascii") + b"\r\n"
    b"Connection: upgrade\r\n\r\n"
)

RequestHandler = Callable[["MachineConnection", ServerStream], None]
"""Told of each request that a machine makes."""


@implementer(IPushProducer)
class MachineConnection(Protocol):
    """
    A connection whose peer has proved which machine it is.

    @ivar machineKey: the machine; zero until the handshake is done.
    @ivar version: the capability version that the machine announced.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        key: MachineKey,
        initiation: bytes,
        randbytes: Callable[[int], bytes],
        onRequest: RequestHandler,
    ) -> None:
        """
        @param reactor: provides the time-out.
        @param key: the server's key.
        @param initiation: the client's handshake message.
        @param randbytes: the source of secret random bytes.
        @param onRequest: told of each request.
        """
        self._reactor = reactor
        self._key = key
        self._initiation = initiation
        self._randbytes = randbytes
        self._splitter = controlframe.RecordSplitter()
        self._sealing: CounterCipher | None = None
        self._opening: CounterCipher | None = None
        self._sent = 0
        self._received = 0
        self._timer: IDelayedCall | None = None
        self._h2 = H2Server(
            lambda stream: onRequest(self, stream), self._sendPlain, self._close
        )
        self.machineKey = MachinePublic.zero()
        self.version = 0

    # -- IProtocol ------------------------------------------------------------------

    def connectionMade(self) -> None:
        """See L{IProtocol}."""
        transport = cast(ITCPTransport, self.transport)
        transport.setTcpNoDelay(True)
        # Finds peers that vanished while nothing was sent to them.
        transport.setTcpKeepAlive(True)
        self._consumer().registerProducer(self, True)
        self._timer = self._reactor.callLater(START_TIMEOUT, self.abort)
        try:
            self._handshake()
        except DecryptError:
            self._write(_SWITCHING)
            self._close()
        except WireError as error:
            self._write(_SWITCHING + controlframe.encodeError(str(error)))
            self._close()

    def _handshake(self) -> None:
        responder = IKResponder(self._key, self._randbytes)
        self.version = responder.consume(self._initiation)
        response = responder.response()
        self.machineKey = responder.clientKey
        self._opening = CounterCipher(responder.receiveKey, bigEndian=True)
        self._sealing = CounterCipher(responder.sendKey, bigEndian=True)
        # Nothing answers the challenge; a key made for it and forgotten does.
        challenge = ChallengePublic(NodeKey.generate(self._randbytes).public().raw)
        early = controlframe.encodeEarlyPayload(challenge)
        self._write(_SWITCHING + response + self._seal(early))
        self._h2.start()

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        if self._opening is None:
            return
        try:
            messages = self._splitter.feed(data)
            plain = b"".join(self._open(kind, sealed) for kind, sealed in messages)
        except WireError as error:
            _log.debug("dropping a control connection: {error}", error=str(error))
            self.abort()
            return
        if plain:
            self._stopTimer()
            self._h2.received(plain)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self._stopTimer()
        self._opening = None
        self._h2.lost()

    # -- records ----------------------------------------------------------------------

    def _open(self, kind: int, sealed: bytes) -> bytes:
        if kind != controlframe.TYPE_RECORD:
            raise WireError(f"a message of type {kind} among the records")
        assert self._opening is not None
        plain = self._opening.open(self._received, sealed)
        self._received += 1
        return plain

    def _seal(self, plain: bytes) -> bytes:
        assert self._sealing is not None
        sealed = []
        for piece in controlframe.splitPlaintext(plain):
            sealed.append(self._sealing.seal(self._sent, piece))
            self._sent += 1
        return controlframe.encodeRecords(sealed)

    def _sendPlain(self, plain: bytes) -> None:
        self._write(self._seal(plain))

    # -- IPushProducer ------------------------------------------------------------

    def pauseProducing(self) -> None:
        """
        Hold back: what was sent is not being read.

        Reading stops too, since much of what a peer sends has to be answered.
        """
        self._h2.pause()
        self._producer().pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading and sending."""
        self._producer().resumeProducing()
        self._h2.resume()

    def stopProducing(self) -> None:
        """The connection is going away; C{connectionLost} follows."""

    # -- ending -----------------------------------------------------------------------

    def abort(self) -> None:
        """Drop the connection now."""
        self._stopTimer()
        self._opening = None
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()

    def _close(self) -> None:
        """Close once everything written has left, or after a while anyway."""
        self._opening = None
        self._stopTimer()
        self._timer = self._reactor.callLater(START_TIMEOUT, self._timedOut)
        assert self.transport is not None
        self._consumer().unregisterProducer()
        self.transport.loseConnection()

    def _timedOut(self) -> None:
        self._timer = None
        self.abort()

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def _consumer(self) -> IConsumer:
        return cast(IConsumer, self.transport)

    def _producer(self) -> IPushProducer:
        return cast(IPushProducer, self.transport)

    def _stopTimer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
