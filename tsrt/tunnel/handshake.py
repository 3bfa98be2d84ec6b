"""
The WireGuard handshake: Noise IKpsk2 over Curve25519, in two messages.

L{Initiation} is the half-open handshake of the side that starts it,
L{ReceivedInitiation} that of the side that answers.  Both end in
L{TransportKeys}.  The MACs of the messages belong to L{tsrt.tunnel.cookies};
here a message ends before them.  The preshared key is always zero.
"""

from __future__ import annotations

from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.hashes import blake2s, kdf, x25519, x25519Base
from tsrt.wire import wireguard

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"

_MACS_LENGTH = 2 * wireguard.MAC_LENGTH
_NO_PRESHARED_KEY = bytes(32)
_INITIAL_CHAIN = blake2s(CONSTRUCTION)
_INITIAL_HASH = blake2s(_INITIAL_CHAIN, IDENTIFIER)


class StaticKey:
    """Our own static key, in the forms that the handshake uses."""

    __slots__ = ("initialHash", "private", "public")

    def __init__(self, private: bytes) -> None:
        """
        @param private: 32 bytes.
        """
        self.private = private
        self.public = x25519Base(private)
        self.initialHash = blake2s(_INITIAL_HASH, self.public)


class TransportKeys:
    """What a finished handshake yields."""

    __slots__ = ("receive", "send")

    def __init__(self, send: bytes, receive: bytes) -> None:
        """
        @param send: the key that seals what we send, 32 bytes.
        @param receive: the key that opens what we receive, 32 bytes.
        """
        self.send = send
        self.receive = receive


class Initiation:
    """
    A handshake that we started and that is not answered yet.
    """

    __slots__ = ("_chain", "_ephemeral", "_hash", "_static", "body", "index")

    def __init__(
        self,
        static: StaticKey,
        remote: bytes,
        staticShared: bytes,
        *,
        index: bytes,
        timestamp: bytes,
        ephemeral: bytes,
    ) -> None:
        """
        @param static: our own key.
        @param remote: the static public key of the peer.
        @param staticShared: the Diffie-Hellman result of the two.
        @param index: the receiver index under which we await the answer.
        @param timestamp: newer than any that this peer has seen from us.
        @param ephemeral: 32 fresh random bytes.
        @raise WireError: the peer's key is not a usable point.
        """
        public = x25519Base(ephemeral)
        digest = blake2s(blake2s(_INITIAL_HASH, remote), public)
        (chain,) = kdf(1, _INITIAL_CHAIN, public)
        chain, key = kdf(2, chain, x25519(ephemeral, remote))
        sealedStatic = CounterCipher(key).seal(0, static.public, digest)
        digest = blake2s(digest, sealedStatic)
        chain, key = kdf(2, chain, staticShared)
        sealedTime = CounterCipher(key).seal(0, timestamp, digest)
        self.index = index
        message = wireguard.Initiation(
            int.from_bytes(index, "little"), public, sealedStatic, sealedTime
        )
        self.body = message.encode()[:-_MACS_LENGTH]
        """The message up to its MACs."""
        self._static = static
        self._ephemeral = ephemeral
        self._chain = chain
        self._hash = blake2s(digest, sealedTime)

    def finish(self, response: bytes) -> TransportKeys:
        """
        Take the peer's answer.

        A wrong answer leaves the handshake as it was, so that a forged one
        cannot prevent the true one from being accepted.

        @param response: a whole response message for our index.
        @raise WireError: it does not answer this initiation.
        """
        message = wireguard.Response.decode(response)
        public = message.ephemeral
        digest = blake2s(self._hash, public)
        (chain,) = kdf(1, self._chain, public)
        (chain,) = kdf(1, chain, x25519(self._ephemeral, public))
        (chain,) = kdf(1, chain, x25519(self._static.private, public))
        chain, mix, key = kdf(3, chain, _NO_PRESHARED_KEY)
        CounterCipher(key).open(0, message.sealedEmpty, blake2s(digest, mix))
        send, receive = kdf(2, chain, b"")
        return TransportKeys(send, receive)


class ReceivedInitiation:
    """
    An initiation that a peer sent to us, opened as far as its static key.

    Who that is must be known before going on with L{authenticate}: nothing is
    proven yet.
    """

    __slots__ = (
        "_chain",
        "_hash",
        "_remoteEphemeral",
        "_sealedTime",
        "index",
        "public",
    )

    def __init__(self, static: StaticKey, message: bytes) -> None:
        """
        @param static: our own key.
        @param message: a whole initiation message.
        @raise WireError: it is not for our key, or malformed.
        """
        initiation = wireguard.Initiation.decode(message)
        ephemeral = initiation.ephemeral
        digest = blake2s(static.initialHash, ephemeral)
        (chain,) = kdf(1, _INITIAL_CHAIN, ephemeral)
        chain, key = kdf(2, chain, x25519(static.private, ephemeral))
        self.index = message[4:8]
        """The sender's receiver index."""
        self.public = CounterCipher(key).open(0, initiation.sealedStatic, digest)
        """The static key that the sender claims to own."""
        self._chain = chain
        self._hash = blake2s(digest, initiation.sealedStatic)
        self._remoteEphemeral = ephemeral
        self._sealedTime = initiation.sealedTimestamp

    def authenticate(self, staticShared: bytes) -> bytes:
        """
        Prove that the sender owns its static key.

        @param staticShared: the Diffie-Hellman result of both static keys.
        @return: the timestamp of the message, 12 bytes.
        @raise WireError: the sender does not own it.
        """
        self._chain, key = kdf(2, self._chain, staticShared)
        timestamp = CounterCipher(key).open(0, self._sealedTime, self._hash)
        self._hash = blake2s(self._hash, self._sealedTime)
        return timestamp

    def respond(self, index: bytes, ephemeral: bytes) -> tuple[bytes, TransportKeys]:
        """
        Answer, once the message is authentic and its timestamp new.

        @param index: the receiver index of our new session.
        @param ephemeral: 32 fresh random bytes.
        @return: the response up to its MACs, and the keys of the session.
        """
        # The sender's two points gave secrets with our static key already, so
        # they do with our ephemeral one: this cannot fail any more.
        public = x25519Base(ephemeral)
        digest = blake2s(self._hash, public)
        (chain,) = kdf(1, self._chain, public)
        (chain,) = kdf(1, chain, x25519(ephemeral, self._remoteEphemeral))
        (chain,) = kdf(1, chain, x25519(ephemeral, self.public))
        chain, mix, key = kdf(3, chain, _NO_PRESHARED_KEY)
        sealed = CounterCipher(key).seal(0, b"", blake2s(digest, mix))
        receive, send = kdf(2, chain, b"")
        message = wireguard.Response(
            int.from_bytes(index, "little"),
            int.from_bytes(self.index, "little"),
            public,
            sealed,
        )
        return message.encode()[:-_MACS_LENGTH], TransportKeys(send, receive)
