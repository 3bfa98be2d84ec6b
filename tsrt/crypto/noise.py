"""
The Noise handshake of the control connection, both roles.

The pattern is C{Noise_IK_25519_ChaChaPoly_BLAKE2s}: the client knows the key
of the server, and sends its own machine key in its first message.  After the
handshake the two transport keys count their records in B{big-endian} order,
unlike generic Noise.

Reference: The Noise Protocol Framework, revision 34.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tsrt.crypto.aead import TAG_LENGTH, CounterCipher
from tsrt.crypto.hashes import blake2s, kdf, x25519, x25519Base
from tsrt.errors import WireError
from tsrt.keys import KEY_LENGTH, MachineKey, MachinePublic

INITIATION_LENGTH = 101
"""Bytes of the client's message."""

RESPONSE_LENGTH = 51
"""Bytes of the server's message."""

_INITIATION_TYPE = 1
_RESPONSE_TYPE = 2
_INITIATION_HEADER = struct.Struct("!HBH")
_RESPONSE_HEADER = struct.Struct("!BH")
_INITIATION_PAYLOAD = INITIATION_LENGTH - _INITIATION_HEADER.size
_RESPONSE_PAYLOAD = RESPONSE_LENGTH - _RESPONSE_HEADER.size
_MAX_VERSION = 0xFFFF

_PROTOCOL = blake2s(b"Noise_IK_25519_ChaChaPoly_BLAKE2s")
_PROLOGUE = b"Tailscale Control Protocol v%d"


class _SymmetricState:
    """The running hash and chaining key of a handshake."""

    __slots__ = ("_chainingKey", "hash")

    def __init__(self) -> None:
        self.hash = self._chainingKey = _PROTOCOL

    def copy(self) -> _SymmetricState:
        """A state that goes its own way from here on."""
        other = _SymmetricState()
        other.hash = self.hash
        other._chainingKey = self._chainingKey
        return other

    def mixHash(self, data: bytes) -> None:
        """Make the rest of the handshake depend on C{data}."""
        self.hash = blake2s(self.hash, data)

    def mixDH(self, private: bytes, public: bytes) -> CounterCipher:
        """Mix in a shared secret; the cipher returned is good for one message."""
        shared = x25519(private, public)
        self._chainingKey, key = kdf(2, self._chainingKey, shared)
        return CounterCipher(key)

    def seal(self, cipher: CounterCipher, plaintext: bytes) -> bytes:
        """Seal a part of the handshake and mix it in."""
        sealed = cipher.seal(0, plaintext, self.hash)
        self.mixHash(sealed)
        return sealed

    def open(self, cipher: CounterCipher, sealed: bytes) -> bytes:
        """Open a part of the handshake and mix it in."""
        opened = cipher.open(0, sealed, self.hash)
        self.mixHash(sealed)
        return opened

    def split(self) -> tuple[bytes, bytes]:
        """The transport keys: from client to server, from server to client."""
        clientToServer, serverToClient = kdf(2, self._chainingKey, b"")
        return clientToServer, serverToClient


def _begin(version: int, serverPublic: bytes) -> _SymmetricState:
    """The state that both sides have before the first message."""
    state = _SymmetricState()
    state.mixHash(_PROLOGUE % version)
    state.mixHash(serverPublic)
    return state


class IKInitiator:
    """
    The client's side of one handshake.

    Call L{initiation}, send it, then give the answer to L{finish}.
    """

    __slots__ = ("_ephemeral", "_machine", "_message", "_state")

    def __init__(
        self,
        machine: MachineKey,
        server: MachinePublic,
        version: int,
        randbytes: Callable[[int], bytes],
    ) -> None:
        """
        @param machine: our key.
        @param server: the key that the server published.
        @param version: the protocol version, which is our capability version.
        @param randbytes: the source of secret random bytes.
        @raise DecryptError: if C{server} is a point of low order.
        @raise WireError: if C{version} does not fit its 16 bits.
        """
        if not 0 <= version <= _MAX_VERSION:
            raise WireError(f"protocol version {version} does not fit 16 bits")
        self._machine = machine
        self._ephemeral = randbytes(KEY_LENGTH)
        self._state = state = _begin(version, server.raw)
        public = x25519Base(self._ephemeral)
        state.mixHash(public)
        cipher = state.mixDH(self._ephemeral, server.raw)
        sealedMachine = state.seal(cipher, machine.public().raw)
        cipher = state.mixDH(machine.raw, server.raw)
        tag = state.seal(cipher, b"")
        header = _INITIATION_HEADER.pack(version, _INITIATION_TYPE, _INITIATION_PAYLOAD)
        self._message = header + public + sealedMachine + tag

    def initiation(self) -> bytes:
        """The 101 bytes to send."""
        return self._message

    def finish(self, response: bytes) -> tuple[bytes, bytes, bytes]:
        """
        Take the server's message.

        @param response: all 51 bytes of it.
        @return: the key to send with, the key to receive with, and the hash of
            the handshake, which names this connection.
        @raise DecryptError: if the server does not own the key it published.
        @raise WireError: if this is no response at all.
        """
        if len(response) != RESPONSE_LENGTH:
            raise WireError(f"a Noise response has {len(response)} bytes, not 51")
        kind, length = _RESPONSE_HEADER.unpack_from(response)
        if kind != _RESPONSE_TYPE:
            raise WireError(f"a Noise response has type {kind}, not 2")
        if length != _RESPONSE_PAYLOAD:
            raise WireError(f"a Noise response announces {length} bytes, not 48")
        return self.finishPayload(response[_RESPONSE_HEADER.size :])

    def finishPayload(self, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """
        Take the server's message without its header of type and length.

        @param payload: the 48 bytes behind the header.
        @return: as L{finish}.
        @raise DecryptError: if the server does not own the key it published.
        @raise WireError: if the length is another.
        """
        if len(payload) != _RESPONSE_PAYLOAD:
            raise WireError(f"a Noise response holds {len(payload)} bytes, not 48")
        state = self._state.copy()
        public, tag = payload[:KEY_LENGTH], payload[KEY_LENGTH:]
        state.mixHash(public)
        state.mixDH(self._ephemeral, public)
        state.open(state.mixDH(self._machine.raw, public), tag)
        send, receive = state.split()
        return send, receive, state.hash


class IKResponder:
    """
    The server's side of one handshake.

    Call L{consume}, look at L{clientKey}, then send L{response} and take the
    keys.  The keys exist only after L{response} was called.
    """

    __slots__ = (
        "_clientEphemeral",
        "_ephemeral",
        "_server",
        "_state",
        "clientKey",
        "handshakeHash",
        "receiveKey",
        "sendKey",
    )

    clientKey: MachinePublic
    """Who the client proved to be; zero before L{consume}."""

    sendKey: bytes
    """The key for records to the client."""

    receiveKey: bytes
    """The key of records from the client."""

    handshakeHash: bytes
    """The hash of the handshake, which names this connection."""

    def __init__(self, server: MachineKey, randbytes: Callable[[int], bytes]) -> None:
        """
        @param server: the key that this server publishes.
        @param randbytes: the source of secret random bytes.
        """
        self._server = server
        self._ephemeral = randbytes(KEY_LENGTH)
        self._state = _SymmetricState()
        self._clientEphemeral = b""
        self.clientKey = MachinePublic.zero()
        self.sendKey = self.receiveKey = self.handshakeHash = b""

    def consume(self, initiation: bytes) -> int:
        """
        Take the client's message.

        @param initiation: all 101 bytes of it.
        @return: the client's protocol version.
        @raise DecryptError: if it was made for another server, or the client
            does not own the key that it sends.
        @raise WireError: if this is no initiation at all.
        """
        if len(initiation) != INITIATION_LENGTH:
            raise WireError("wrong handshake initiation size")
        version, kind, length = _INITIATION_HEADER.unpack_from(initiation)
        if kind != _INITIATION_TYPE:
            raise WireError("unexpected handshake message type")
        if length != _INITIATION_PAYLOAD:
            raise WireError("wrong handshake initiation length")
        state = _begin(version, self._server.public().raw)
        publicEnd = _INITIATION_HEADER.size + KEY_LENGTH
        machineEnd = publicEnd + KEY_LENGTH + TAG_LENGTH
        public = initiation[_INITIATION_HEADER.size : publicEnd]
        state.mixHash(public)
        cipher = state.mixDH(self._server.raw, public)
        machine = state.open(cipher, initiation[publicEnd:machineEnd])
        cipher = state.mixDH(self._server.raw, machine)
        state.open(cipher, initiation[machineEnd:])
        self._state = state
        self._clientEphemeral = public
        self.clientKey = MachinePublic(machine)
        return int(version)

    def response(self) -> bytes:
        """
        The 51 bytes to send; also makes the keys.

        @raise WireError: if no initiation was consumed before.
        @raise DecryptError: if a key of the client has low order.
        """
        if not self._clientEphemeral:
            raise WireError("there is no handshake initiation to answer")
        state = self._state.copy()
        public = x25519Base(self._ephemeral)
        state.mixHash(public)
        state.mixDH(self._ephemeral, self._clientEphemeral)
        tag = state.seal(state.mixDH(self._ephemeral, self.clientKey.raw), b"")
        self.receiveKey, self.sendKey = state.split()
        self.handshakeHash = state.hash
        header = _RESPONSE_HEADER.pack(_RESPONSE_TYPE, _RESPONSE_PAYLOAD)
        return header + public + tag
