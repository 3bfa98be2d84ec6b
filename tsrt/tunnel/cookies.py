"""
The two MACs of handshake messages, and cookies against floods of them.

The first MAC shows that the sender knows our public key; without it nothing is
looked at.  The second one matters only under load: then a handshake message is
answered by a I{cookie} alone, which costs one hash, and dealt with only when it
comes again with a MAC made from that cookie, which shows that the sender owns
its address.  Owned addresses are then held to a rate each.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from tsrt.crypto import xchacha
from tsrt.crypto.hashes import blake2s, mac16
from tsrt.errors import DecryptError
from tsrt.wire.wireguard import MAC_LENGTH, NO_MAC, CookieReply

COOKIE_LIFETIME = 120.0
"""How long a cookie is good, on either side, in seconds."""

_LABEL_MAC1 = b"mac1----"
_LABEL_COOKIE = b"cookie--"


class CookieJar:
    """
    What we need to put MACs on our handshake messages to one peer.
    """

    __slots__ = ("_cookie", "_cookieAt", "_lastMac1", "_macKey", "_public")

    def __init__(self, public: bytes) -> None:
        """
        @param public: the static key of the receiver, 32 bytes.
        """
        self._public = public
        self._macKey = blake2s(_LABEL_MAC1, public)
        self._cookie = b""
        self._cookieAt = 0.0
        self._lastMac1 = b""

    def sign(self, body: bytes, now: float) -> bytes:
        """
        Complete a handshake message.

        @param body: the message without its two MACs.
        """
        self._lastMac1 = mac1 = mac16(self._macKey, body)
        signed = body + mac1
        if self._cookie and now - self._cookieAt < COOKIE_LIFETIME:
            return signed + mac16(self._cookie, signed)
        return signed + NO_MAC

    def accept(self, nonce: bytes, sealed: bytes, now: float) -> None:
        """
        Keep the cookie that the peer sent in place of an answer.

        @raise DecryptError: it was not made for our newest handshake message.
        """
        if not self._lastMac1:
            raise DecryptError("a cookie came without a message to answer")
        key = blake2s(_LABEL_COOKIE, self._public)
        self._cookie = xchacha.open(key, nonce, sealed, self._lastMac1)
        self._cookieAt = now


class CookieChecker:
    """
    Checks the MACs of handshake messages sent to us, and bakes cookies.
    """

    __slots__ = ("_cookieKey", "_macKey", "_randbytes", "_secret", "_secretAt")

    def __init__(self, public: bytes, randbytes: Callable[[int], bytes]) -> None:
        """
        @param public: our static key, 32 bytes.
        """
        self._macKey = blake2s(_LABEL_MAC1, public)
        self._cookieKey = blake2s(_LABEL_COOKIE, public)
        self._randbytes = randbytes
        self._secret = b""
        self._secretAt = 0.0

    def checkMac1(self, message: bytes) -> bool:
        """Whether the sender of a whole handshake message knows our key."""
        mac1 = mac16(self._macKey, message[: -2 * MAC_LENGTH])
        return compare_digest(mac1, message[-2 * MAC_LENGTH : -MAC_LENGTH])

    def checkMac2(self, message: bytes, source: bytes, now: float) -> bool:
        """
        Whether the sender holds the cookie that we gave to this source.

        @param source: where the message came from, in any form that is always
            the same for the same place.
        """
        if not self._secret or now - self._secretAt >= COOKIE_LIFETIME:
            return False
        mac2 = mac16(mac16(self._secret, source), message[:-MAC_LENGTH])
        return compare_digest(mac2, message[-MAC_LENGTH:])

    def reply(self, message: bytes, source: bytes, now: float) -> bytes:
        """
        The cookie reply to a whole handshake message, 64 bytes.
        """
        if not self._secret or now - self._secretAt >= COOKIE_LIFETIME:
            self._secret = self._randbytes(32)
            self._secretAt = now
        cookie = mac16(self._secret, source)
        nonce = self._randbytes(24)
        mac1 = message[-2 * MAC_LENGTH : -MAC_LENGTH]
        sealed = xchacha.seal(self._cookieKey, nonce, cookie, mac1)
        index = int.from_bytes(message[4:8], "little")
        return CookieReply(index, nonce, sealed).encode()
