"""
Frames of the DERP relay protocol, version 2, both directions.

A frame is one byte of type, four bytes of length and that many bytes of
payload.  L{FrameSplitter} cuts a stream into frames; each kind of payload has
a builder that makes a whole frame and, where there is something to take
apart, a parser that takes a payload.

All integers are big-endian.  Keys are raw 32-byte node keys.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import NamedTuple

from tsrt.addresses import BINARY_ADDR_PORT_LENGTH, AddrPort
from tsrt.errors import WireError

KEY_LENGTH = 32
NONCE_LENGTH = 24
HEADER_LENGTH = 5

MAGIC = b"DERP\xf0\x9f\x94\x91"
"""What a server key frame begins with."""

PROTOCOL_VERSION = 2

MAX_PACKET = 65536
"""Bytes of the largest packet that a relay takes."""

MAX_FRAME = 1 << 20
"""Bytes of the largest payload that a client takes."""

MAX_SERVER_KEY = 1024
"""Bytes of the largest server key payload that a client takes."""

MAX_CLIENT_INFO = 256 << 10
"""Bytes of the largest client info payload that a server takes."""

MIN_CLIENT_INFO = KEY_LENGTH + NONCE_LENGTH
"""Bytes of the smallest client info payload."""

MAX_SERVER_INFO = NONCE_LENGTH + (1 << 20)
"""Bytes of the largest server info payload that a client takes."""

PING_LENGTH = 8
"""Bytes of what a ping carries and its pong returns."""

MAX_PING = 1000
"""Bytes of the largest ping that a server answers; it returns the first 8."""


class FrameType(enum.IntEnum):
    """The first byte of a frame; receivers skip those they do not know."""

    SERVER_KEY = 0x01
    CLIENT_INFO = 0x02
    SERVER_INFO = 0x03
    SEND_PACKET = 0x04
    RECV_PACKET = 0x05
    KEEP_ALIVE = 0x06
    NOTE_PREFERRED = 0x07
    PEER_GONE = 0x08
    PEER_PRESENT = 0x09
    FORWARD_PACKET = 0x0A
    WATCH_CONNS = 0x10
    CLOSE_PEER = 0x11
    PING = 0x12
    PONG = 0x13
    HEALTH = 0x14
    RESTARTING = 0x15


CLIENT_LIMITS: Mapping[int, int] = {
    FrameType.SERVER_KEY: MAX_SERVER_KEY,
    FrameType.SERVER_INFO: MAX_SERVER_INFO,
}
"""What a client's L{FrameSplitter} allows besides L{MAX_FRAME}."""

SERVER_LIMITS: Mapping[int, int] = {
    FrameType.CLIENT_INFO: MAX_CLIENT_INFO,
    FrameType.SEND_PACKET: KEY_LENGTH + MAX_PACKET,
    FrameType.FORWARD_PACKET: 2 * KEY_LENGTH + MAX_PACKET,
    FrameType.PING: MAX_PING,
}
"""What a server's L{FrameSplitter} allows besides L{MAX_FRAME}."""


class PeerGoneReason(enum.IntEnum):
    """Why a relay says that a peer is gone."""

    DISCONNECTED = 0x00
    """The peer's last connection with this relay has ended."""

    NOT_HERE = 0x01
    """The peer is not connected with this relay."""


class PeerPresentFlag(enum.IntFlag):
    """What a relay tells its mesh about a client."""

    REGULAR = 1
    MESH_PEER = 2
    PROBER = 4
    NOT_IDEAL = 8


_HEADER = struct.Struct("!BI")
_RESTARTING = struct.Struct("!II")


class FrameSplitter:
    """
    Cuts a stream of bytes into frames.

    Holds at most one unfinished frame, which is never longer than its type
    allows: the length is judged before the payload arrives.
    """

    __slots__ = ("_chunks", "_held", "_limit", "_limits", "_wanted")

    def __init__(
        self, limit: int = MAX_FRAME, limits: Mapping[int, int] = CLIENT_LIMITS
    ) -> None:
        """
        @param limit: bytes of the largest payload.
        @param limits: the same for single types, by type.
        """
        self._limit = limit
        self._limits = limits
        self._chunks: list[bytes] = []
        self._held = 0
        # How many bytes to have before it is worth looking, so that a long
        # frame in tiny pieces is not joined anew for each of them.
        self._wanted = HEADER_LENGTH

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        Take the next bytes of the stream.

        @return: the type and the payload of each frame that is now complete.
        @raise WireError: when a frame is longer than allowed; the stream is
            then beyond rescue, and so are the frames of this call.
        """
        if self._held:
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data = b"".join(self._chunks)
        frames = []
        at = 0
        size = len(data)
        self._wanted = HEADER_LENGTH
        while size - at >= HEADER_LENGTH:
            kind, length = _HEADER.unpack_from(data, at)
            if length > self._limits.get(kind, self._limit):
                raise WireError(f"a DERP frame of type {kind} has {length} bytes")
            end = at + HEADER_LENGTH + length
            if end > size:
                self._wanted = end - at
                break
            frames.append((kind, data[at + HEADER_LENGTH : end]))
            at = end
        self._chunks = [data[at:]]
        self._held = size - at
        return frames


def encodeFrame(kind: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def _splitKey(payload: bytes, what: str) -> tuple[bytes, bytes]:
    """The key at the front of C{payload}, and the rest."""
    if len(payload) < KEY_LENGTH:
        raise WireError(f"a DERP {what} frame is cut short")
    return payload[:KEY_LENGTH], payload[KEY_LENGTH:]


# -- login ------------------------------------------------------------------


def buildServerKey(public: bytes) -> bytes:
    """The frame with which a server says who it is."""
    return encodeFrame(FrameType.SERVER_KEY, MAGIC + public)


def parseServerKey(payload: bytes) -> bytes:
    """
    The server's public key; what follows it is ignored.

    @raise WireError: if this is no DERP server.
    """
    if not payload.startswith(MAGIC):
        raise WireError("the server does not speak DERP")
    return _splitKey(payload[len(MAGIC) :], "server key")[0]


def buildClientInfo(public: bytes, nonceAndBox: bytes) -> bytes:
    """
    The frame with which a client logs in.

    @param public: the client's node key.
    @param nonceAndBox: the nonce and the box that holds the client info.
    """
    return encodeFrame(FrameType.CLIENT_INFO, public + nonceAndBox)


def parseClientInfo(payload: bytes) -> tuple[bytes, bytes]:
    """
    The client's node key, and the nonce and box.

    @raise WireError: if it is cut short.
    """
    if len(payload) < MIN_CLIENT_INFO:
        raise WireError("a DERP client info frame is cut short")
    return _splitKey(payload, "client info")


def buildServerInfo(nonceAndBox: bytes) -> bytes:
    """The frame with which a server answers a login."""
    return encodeFrame(FrameType.SERVER_INFO, nonceAndBox)


# -- packets ----------------------------------------------------------------

_PACKET_HEADER = struct.Struct("!BI32s")
_SEND_PACKET = FrameType.SEND_PACKET.value
_RECV_PACKET = FrameType.RECV_PACKET.value


def buildSendPacket(destination: bytes, packet: bytes) -> bytes:
    """
    The frame with which a client sends C{packet}.

    @param packet: at most L{MAX_PACKET} bytes.
    """
    length = KEY_LENGTH + len(packet)
    return _PACKET_HEADER.pack(_SEND_PACKET, length, destination) + packet


def parseSendPacket(payload: bytes) -> tuple[bytes, bytes]:
    """
    Destination and packet.

    @raise WireError: if it is cut short.
    """
    return _splitKey(payload, "send packet")


def buildRecvPacket(source: bytes, packet: bytes) -> bytes:
    """The frame with which a server delivers C{packet}."""
    length = KEY_LENGTH + len(packet)
    return _PACKET_HEADER.pack(_RECV_PACKET, length, source) + packet


def parseRecvPacket(payload: bytes) -> tuple[bytes, bytes]:
    """
    Source and packet.

    @raise WireError: if it is cut short.
    """
    return _splitKey(payload, "receive packet")


def buildForwardPacket(source: bytes, destination: bytes, packet: bytes) -> bytes:
    """The frame with which a mesh peer has C{packet} delivered."""
    return encodeFrame(FrameType.FORWARD_PACKET, source + destination + packet)


def parseForwardPacket(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """
    Source, destination and packet.

    @raise WireError: if it is cut short.
    """
    source, rest = _splitKey(payload, "forward packet")
    return (source, *_splitKey(rest, "forward packet"))


# -- the state of the connection --------------------------------------------


def buildKeepAlive() -> bytes:
    """The frame that shows that a server is alive."""
    return encodeFrame(FrameType.KEEP_ALIVE)


def buildNotePreferred(home: bool) -> bytes:
    """The frame that says whether this relay is the client's home."""
    return encodeFrame(FrameType.NOTE_PREFERRED, b"\x01" if home else b"\x00")


def parseNotePreferred(payload: bytes) -> bool:
    """
    Whether this relay is the client's home.

    @raise WireError: if it is neither yes nor no.
    """
    if payload not in (b"\x00", b"\x01"):
        raise WireError("a DERP note preferred frame is neither yes nor no")
    return payload == b"\x01"


def buildPing(data: bytes) -> bytes:
    """The frame that asks for a pong with the same 8 bytes."""
    return encodeFrame(FrameType.PING, data)


def buildPong(data: bytes) -> bytes:
    """The answer to a ping; C{data} is cut to its first 8 bytes."""
    return encodeFrame(FrameType.PONG, data[:PING_LENGTH])


def parsePing(payload: bytes) -> bytes:
    """
    What the pong to this ping has to carry; also reads pongs.

    @raise WireError: if it is less than 8 bytes.
    """
    if len(payload) < PING_LENGTH:
        raise WireError("a DERP ping or pong frame is cut short")
    return payload[:PING_LENGTH]


def buildHealth(problem: str) -> bytes:
    """The frame that tells of a problem, or with no text that it is over."""
    return encodeFrame(FrameType.HEALTH, problem.encode("utf-8"))


def parseHealth(payload: bytes) -> str:
    """The problem; empty when all is well.  Bytes that are no text are replaced."""
    return payload.decode("utf-8", "replace")


class Restarting(NamedTuple):
    """What a server asks of its clients when it restarts."""

    reconnectIn: float
    """Seconds to wait before the first attempt to connect again."""

    tryFor: float
    """Seconds to go on with attempts."""


def buildRestarting(reconnectIn: float, tryFor: float) -> bytes:
    """
    The frame that tells of a restart.

    @param reconnectIn: seconds.
    @param tryFor: seconds.
    """
    payload = _RESTARTING.pack(round(reconnectIn * 1000), round(tryFor * 1000))
    return encodeFrame(FrameType.RESTARTING, payload)


def parseRestarting(payload: bytes) -> Restarting:
    """
    What the server asks for.

    @raise WireError: if it is cut short.
    """
    if len(payload) < _RESTARTING.size:
        raise WireError("a DERP restarting frame is cut short")
    reconnectIn, tryFor = _RESTARTING.unpack_from(payload)
    return Restarting(reconnectIn / 1000, tryFor / 1000)


# -- peers ------------------------------------------------------------------


def buildPeerGone(peer: bytes, reason: int = PeerGoneReason.DISCONNECTED) -> bytes:
    """The frame that says that C{peer} cannot be reached here."""
    return encodeFrame(FrameType.PEER_GONE, peer + bytes((reason,)))


def parsePeerGone(payload: bytes) -> tuple[bytes, int]:
    """
    The peer and the reason, which may be one that we do not know; a missing
    reason is L{PeerGoneReason.DISCONNECTED}.

    @raise WireError: if it is cut short.
    """
    peer, rest = _splitKey(payload, "peer gone")
    return peer, rest[0] if rest else PeerGoneReason.DISCONNECTED.value


class PeerPresent(NamedTuple):
    """What a server tells its mesh about one of its clients."""

    peer: bytes
    """The client's node key."""

    addrPort: AddrPort | None = None
    """Where the client connects from, if told."""

    flags: int = 0
    """Bits of L{PeerPresentFlag}."""


def buildPeerPresent(present: PeerPresent) -> bytes:
    """The frame that tells the mesh of a client; flags need an address."""
    payload = present.peer
    if present.addrPort is not None:
        payload += present.addrPort.binary() + bytes((present.flags,))
    return encodeFrame(FrameType.PEER_PRESENT, payload)


def parsePeerPresent(payload: bytes) -> PeerPresent:
    """
    What the server tells; both address and flags may be missing.

    @raise WireError: if it is cut short.
    """
    peer, rest = _splitKey(payload, "peer present")
    if len(rest) < BINARY_ADDR_PORT_LENGTH:
        return PeerPresent(peer)
    flags = rest[BINARY_ADDR_PORT_LENGTH : BINARY_ADDR_PORT_LENGTH + 1]
    return PeerPresent(peer, AddrPort.fromBinary(rest), flags[0] if flags else 0)


def buildWatchConns() -> bytes:
    """The frame with which a mesh peer asks to be told of all clients."""
    return encodeFrame(FrameType.WATCH_CONNS)


def buildClosePeer(peer: bytes) -> bytes:
    """The frame with which a mesh peer has a client's connections closed."""
    return encodeFrame(FrameType.CLOSE_PEER, peer)


def parseClosePeer(payload: bytes) -> bytes:
    """
    The client to close.

    @raise WireError: if it is cut short.
    """
    return _splitKey(payload, "close peer")[0]
