"""
Disco: how two nodes find direct paths between them.

A disco datagram is an envelope (magic, the sender's disco key, a nonce, a box)
around a message.  The box is sealed elsewhere; here are the envelope and the
plaintexts.  All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from tsrt.addresses import BINARY_ADDR_PORT_LENGTH, AddrPort
from tsrt.errors import WireError
from tsrt.wire.relayendpoint import KEY_LENGTH, RelayEndpoint, parseEndpoints

MAGIC = b"TS\xf0\x9f\x92\xac"
"""What every disco datagram begins with."""

NONCE_LENGTH = 24
TXID_LENGTH = 12

ENVELOPE_LENGTH = len(MAGIC) + KEY_LENGTH
"""Bytes of magic and key, the least that makes a datagram disco."""

MIN_WRAPPER = ENVELOPE_LENGTH + NONCE_LENGTH
"""Bytes below which a relay does not take a packet for disco."""

PING_DATAGRAM = 124
"""Bytes of the datagram of a ping without padding."""

TYPE_PING = 1
TYPE_PONG = 2
TYPE_CALL_ME_MAYBE = 3
TYPE_BIND = 4
TYPE_BIND_CHALLENGE = 5
TYPE_BIND_ANSWER = 6
TYPE_CALL_ME_MAYBE_VIA = 7
TYPE_ALLOCATE_REQUEST = 8
TYPE_ALLOCATE_RESPONSE = 9

_VERSION = 0
_HEAD_LENGTH = 2
_BIND = struct.Struct("!II32s32s")
_GENERATION = struct.Struct("!I")
_KEY_PAIR_LENGTH = 2 * KEY_LENGTH


def encodeEnvelope(sender: bytes, nonceAndBox: bytes) -> bytes:
    """
    A whole datagram.

    @param sender: the sender's disco key, 32 bytes.
    @param nonceAndBox: the nonce and the box that holds the message.
    """
    return MAGIC + sender + nonceAndBox


def parseEnvelope(datagram: bytes) -> tuple[bytes, bytes]:
    """
    The sender's disco key, and the nonce and box.

    @raise WireError: if this is no disco datagram, or cut short.
    """
    if not datagram.startswith(MAGIC):
        raise WireError("a datagram is not disco")
    if len(datagram) < MIN_WRAPPER:
        raise WireError("a disco datagram is cut short")
    return datagram[len(MAGIC) : ENVELOPE_LENGTH], datagram[ENVELOPE_LENGTH:]


def _head(kind: int) -> bytes:
    """Type and version."""
    return bytes((kind, _VERSION))


class Ping(NamedTuple):
    """Asks whether a path works."""

    txid: bytes
    """12 random bytes, to know the pong by."""

    nodeKey: bytes = b""
    """The sender's node key, 32 bytes; empty from very old senders."""

    padding: int = 0
    """Bytes added to reach the size that is to be probed."""

    def encode(self) -> bytes:
        """The plaintext; without a node key there is no padding either."""
        padding = bytes(self.padding) if self.nodeKey else b""
        return _head(TYPE_PING) + self.txid + self.nodeKey + padding


class Pong(NamedTuple):
    """Answers a ping."""

    txid: bytes
    """That of the ping."""

    source: AddrPort
    """Where the ping came from, as its receiver saw it."""

    def encode(self) -> bytes:
        """The plaintext."""
        return _head(TYPE_PONG) + self.txid + self.source.binary()


class CallMeMaybe(NamedTuple):
    """Asks the receiver to ping these addresses; travels through a relay."""

    endpoints: tuple[AddrPort, ...]

    def encode(self) -> bytes:
        """The plaintext."""
        tail = b"".join(endpoint.binary() for endpoint in self.endpoints)
        return _head(TYPE_CALL_ME_MAYBE) + tail


class _BindFields(NamedTuple):
    vni: int
    """The number that the relay gave to the pair of clients."""

    generation: int
    """Which allocation this belongs to; never zero."""

    remoteKey: bytes
    """The disco key of the other client, 32 bytes."""

    challenge: bytes
    """32 bytes, the relay's secret to answer with."""


class _Bind(_BindFields):
    """What the three messages of a bind have in common."""

    __slots__ = ()
    KIND: ClassVar[int]

    def encode(self) -> bytes:
        """The plaintext."""
        return _head(self.KIND) + _BIND.pack(*self)


class BindEndpoint(_Bind):
    """A client asks a relay to take it at the address it sends from."""

    __slots__ = ()
    KIND = TYPE_BIND


class BindChallenge(_Bind):
    """The relay wants to see that the client receives what it sends there."""

    __slots__ = ()
    KIND = TYPE_BIND_CHALLENGE


class BindAnswer(_Bind):
    """The client returns the challenge."""

    __slots__ = ()
    KIND = TYPE_BIND_ANSWER


class CallMeMaybeVia(NamedTuple):
    """Asks the receiver to meet at a peer relay; travels through DERP."""

    endpoint: RelayEndpoint

    def encode(self) -> bytes:
        """The plaintext."""
        return _head(TYPE_CALL_ME_MAYBE_VIA) + self.endpoint.encode()


class AllocateRequest(NamedTuple):
    """Asks a peer relay for a place to meet; travels through DERP."""

    clientDisco: tuple[bytes, bytes]
    """The disco keys of both clients; senders put the smaller one first."""

    generation: int
    """Returned in the answer; never zero."""

    def encode(self) -> bytes:
        """The plaintext."""
        tail = b"".join(self.clientDisco) + _GENERATION.pack(self.generation)
        return _head(TYPE_ALLOCATE_REQUEST) + tail


class AllocateResponse(NamedTuple):
    """A peer relay answers with a place to meet; travels through DERP."""

    generation: int
    """That of the request."""

    endpoint: RelayEndpoint

    def encode(self) -> bytes:
        """The plaintext."""
        tail = _GENERATION.pack(self.generation) + self.endpoint.encode()
        return _head(TYPE_ALLOCATE_RESPONSE) + tail


Message = (
    Ping
    | Pong
    | CallMeMaybe
    | BindEndpoint
    | BindChallenge
    | BindAnswer
    | CallMeMaybeVia
    | AllocateRequest
    | AllocateResponse
)
"""Whatever a box may hold."""


def _need(body: bytes, length: int, what: str) -> None:
    """Check that C{body} is long enough."""
    if len(body) < length:
        raise WireError(f"a disco {what} is cut short")


def _parsePing(version: int, body: bytes) -> Ping:
    _need(body, TXID_LENGTH, "ping")
    keyEnd = TXID_LENGTH + KEY_LENGTH
    if len(body) < keyEnd:
        return Ping(body[:TXID_LENGTH])
    return Ping(body[:TXID_LENGTH], body[TXID_LENGTH:keyEnd], len(body) - keyEnd)


def _parsePong(version: int, body: bytes) -> Pong:
    _need(body, TXID_LENGTH + BINARY_ADDR_PORT_LENGTH, "pong")
    return Pong(body[:TXID_LENGTH], AddrPort.fromBinary(body, TXID_LENGTH))


def _parseCallMeMaybe(version: int, body: bytes) -> CallMeMaybe:
    if version != _VERSION or len(body) % BINARY_ADDR_PORT_LENGTH:
        # Something newer: the sender still wants to be called, but we cannot
        # read where.
        return CallMeMaybe(())
    return CallMeMaybe(parseEndpoints(body, 0))


def _parseBind(version: int, body: bytes) -> BindEndpoint:
    _need(body, _BIND.size, "bind")
    return BindEndpoint(*_BIND.unpack_from(body))


def _parseChallenge(version: int, body: bytes) -> BindChallenge:
    _need(body, _BIND.size, "bind challenge")
    return BindChallenge(*_BIND.unpack_from(body))


def _parseAnswer(version: int, body: bytes) -> BindAnswer:
    _need(body, _BIND.size, "bind answer")
    return BindAnswer(*_BIND.unpack_from(body))


def _parseVia(version: int, body: bytes) -> CallMeMaybeVia:
    if version != _VERSION:
        raise WireError("a disco call-me-maybe-via has an unknown version")
    return CallMeMaybeVia(RelayEndpoint.decode(body))


def _parseAllocateRequest(version: int, body: bytes) -> AllocateRequest:
    _need(body, _KEY_PAIR_LENGTH + _GENERATION.size, "allocate request")
    (generation,) = _GENERATION.unpack_from(body, _KEY_PAIR_LENGTH)
    pair = body[:KEY_LENGTH], body[KEY_LENGTH:_KEY_PAIR_LENGTH]
    return AllocateRequest(pair, generation)


def _parseAllocateResponse(version: int, body: bytes) -> AllocateResponse:
    _need(body, _GENERATION.size, "allocate response")
    (generation,) = _GENERATION.unpack_from(body)
    return AllocateResponse(generation, RelayEndpoint.decode(body[_GENERATION.size :]))


_PARSERS: dict[int, Callable[[int, bytes], Message]] = {
    TYPE_PING: _parsePing,
    TYPE_PONG: _parsePong,
    TYPE_CALL_ME_MAYBE: _parseCallMeMaybe,
    TYPE_BIND: _parseBind,
    TYPE_BIND_CHALLENGE: _parseChallenge,
    TYPE_BIND_ANSWER: _parseAnswer,
    TYPE_CALL_ME_MAYBE_VIA: _parseVia,
    TYPE_ALLOCATE_REQUEST: _parseAllocateRequest,
    TYPE_ALLOCATE_RESPONSE: _parseAllocateResponse,
}


def parseMessage(plaintext: bytes) -> Message:
    """
    The message in an opened box.

    @raise WireError: for an unknown type, or a message cut short.
    """
    _need(plaintext, _HEAD_LENGTH, "message")
    parser = _PARSERS.get(plaintext[0])
    if parser is None:
        raise WireError(f"there is no disco message of type {plaintext[0]}")
    return parser(plaintext[1], plaintext[_HEAD_LENGTH:])
