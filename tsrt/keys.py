"""
The keys of a tailnet as values: their bytes, their text, and what they show.

Public keys are plain values that may be printed.  Private keys and other
secrets hide their content in C{repr} and C{str}, so that they can be logged or
appear in a traceback by accident without harm.

Reference: RFC 7748 (X25519), RFC 8032 (Ed25519).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from typing import ClassVar, Final, Self

from nacl.bindings import (
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from tsrt.errors import WireError

KEY_LENGTH = 32
"""Bytes of every public key, and of every X25519 private key."""

SIGNATURE_LENGTH = 64
"""Bytes of an Ed25519 signature."""

_NODE_BINARY_PREFIX = b"np"
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")


def _parseHex(text: str, prefixes: tuple[str, ...], length: int, what: str) -> bytes:
    """
    The C{length} bytes that C{text} spells in hexadecimal behind a prefix.

    The message of the error never quotes C{text}, which may be a secret.
    """
    for prefix in prefixes:
        if text.startswith(prefix):
            digits = text[len(prefix) :]
            if len(digits) != 2 * length or not _HEX.fullmatch(digits):
                raise WireError(f"{what} is not {2 * length} hexadecimal digits")
            return bytes.fromhex(digits)
    raise WireError(f"{what} does not begin with {prefixes[0]!r}")


class PublicKey:
    """
    A public key of 32 bytes.

    Keys of one kind compare and sort by their bytes; keys of different kinds
    are never equal, even with the same bytes.
    """

    __slots__ = ("raw",)

    PREFIX: ClassVar[str] = ""
    """What the text form begins with."""

    _alternatives: ClassVar[tuple[str, ...]] = ()
    """Further prefixes that L{parse} takes."""

    raw: Final[bytes]
    """The 32 bytes of the key."""

    def __init__(self, raw: bytes) -> None:
        """
        @param raw: the 32 bytes of the key.
        @raise WireError: if there are not 32 of them.
        """
        if len(raw) != KEY_LENGTH:
            raise WireError(f"a {type(self).__name__} has {len(raw)} bytes, not 32")
        self.raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the text form; the digits may be of either case.

        @raise WireError: for a wrong prefix, length or digit.
        """
        prefixes = (cls.PREFIX, *cls._alternatives)
        return cls(_parseHex(text, prefixes, KEY_LENGTH, cls.__name__))

    @classmethod
    def zero(cls) -> Self:
        """The key of zero bytes, which stands for an absent key."""
        return cls(bytes(KEY_LENGTH))

    def isZero(self) -> bool:
        """Whether this is the key that stands for an absent one."""
        return not any(self.raw)

    def text(self) -> str:
        """The prefix of this kind of key and 64 lower-case digits."""
        return self.PREFIX + self.raw.hex()

    def short(self) -> str:
        """A short form for people; never parsed and not unique."""
        return f"[{base64.b64encode(self.raw).decode('ascii')[:5]}]"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.text()}>"

    def __hash__(self) -> int:
        return hash(self.raw)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.raw == other.raw

    def __lt__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.raw < other.raw

    def __le__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.raw <= other.raw


class MachinePublic(PublicKey):
    """Who a device, or a control server, is in the control connection."""

    __slots__ = ()
    PREFIX = "mkey:"


class NodePublic(PublicKey):
    """Who a node is to its peers (WireGuard) and to relays; it rotates."""

    __slots__ = ()
    PREFIX = "nodekey:"

    def binary(self) -> bytes:
        """The 34-byte binary form: the letters C{np} and the key."""
        return _NODE_BINARY_PREFIX + self.raw

    @classmethod
    def fromBinary(cls, data: bytes) -> NodePublic:
        """
        Read the 34-byte binary form.

        @raise WireError: for another length or other letters.
        """
        if not data.startswith(_NODE_BINARY_PREFIX):
            raise WireError("a binary node key does not begin with 'np'")
        return cls(data[len(_NODE_BINARY_PREFIX) :])


class DiscoPublic(PublicKey):
    """Who a running node is in path discovery; new at each start."""

    __slots__ = ()
    PREFIX = "discokey:"

    def short(self) -> str:
        """C{d:} and the first eight bytes in hexadecimal."""
        return "d:" + self.raw[:8].hex()


class ChallengePublic(PublicKey):
    """What the control server sends in its early payload."""

    __slots__ = ()
    PREFIX = "chalpub:"


class LockPublic(PublicKey):
    """An Ed25519 key that may sign for the tailnet lock."""

    __slots__ = ()
    PREFIX = "nlpub:"
    COMMAND_PREFIX: ClassVar[str] = "tlpub:"
    """What the text form begins with on command lines."""
    _alternatives = (COMMAND_PREFIX,)

    def commandText(self) -> str:
        """The text form that command lines show."""
        return self.COMMAND_PREFIX + self.raw.hex()

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether C{signature} is this key's Ed25519 signature of C{data}."""
        if len(signature) != SIGNATURE_LENGTH:
            return False
        try:
            crypto_sign_open(signature + data, self.raw)
        except BadSignatureError:
            return False
        return True


def clamp(raw: bytes) -> bytes:
    """
    Clear and set the bits of a 32-byte X25519 scalar as RFC 7748 section 5
    asks.
    """
    return bytes((raw[0] & 248, *raw[1:31], raw[31] & 127 | 64))


class PrivateKey:
    """
    An X25519 private key; C{repr} and C{str} show only the public half.

    Keys that were not clamped are kept as they are: the function clamps.
    """

    __slots__ = ("_public", "raw")

    PREFIX: ClassVar[str] = "privkey:"

    raw: Final[bytes]
    """The 32 secret bytes."""

    def __init__(self, raw: bytes) -> None:
        """
        @param raw: the 32 secret bytes.
        @raise WireError: if there are not 32 of them, or all are zero.
        """
        if len(raw) != KEY_LENGTH:
            raise WireError(f"a {type(self).__name__} has {len(raw)} bytes, not 32")
        if not any(raw):
            raise WireError(f"a {type(self).__name__} is all zeros")
        self.raw = bytes(raw)
        self._public: bytes = crypto_scalarmult_base(self.raw)

    @classmethod
    def generate(cls, randbytes: Callable[[int], bytes]) -> Self:
        """
        Make a new, clamped key.

        @param randbytes: the source of secret random bytes.
        """
        return cls(clamp(randbytes(KEY_LENGTH)))

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read the text form.

        @raise WireError: for a wrong prefix, length or digit.
        """
        return cls(_parseHex(text, (cls.PREFIX,), KEY_LENGTH, cls.__name__))

    def text(self) -> str:
        """The text form B{with the secret}, for the state of a node only."""
        return self.PREFIX + self.raw.hex()

    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._public)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} <redacted>, public {self.public().short()}>"

    def __hash__(self) -> int:
        return hash(self._public)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return hmac.compare_digest(self.raw, other.raw)


class MachineKey(PrivateKey):
    """The private half of L{MachinePublic}; one for each device."""

    __slots__ = ()

    def public(self) -> MachinePublic:
        """The public half."""
        return MachinePublic(self._public)


class NodeKey(PrivateKey):
    """The private half of L{NodePublic}."""

    __slots__ = ()

    def public(self) -> NodePublic:
        """The public half."""
        return NodePublic(self._public)


class DiscoKey(PrivateKey):
    """The private half of L{DiscoPublic}; never saved."""

    __slots__ = ()

    def public(self) -> DiscoPublic:
        """The public half."""
        return DiscoPublic(self._public)


class LockKey:
    """
    An Ed25519 private key for the tailnet lock.

    Its 64 bytes are the 32-byte seed and the public key.
    """

    __slots__ = ("_secret",)

    PREFIX: ClassVar[str] = "nlpriv:"

    def __init__(self, seed: bytes) -> None:
        """
        @param seed: the 32 secret bytes of RFC 8032.
        @raise WireError: if there are not 32 of them.
        """
        if len(seed) != KEY_LENGTH:
            raise WireError(f"a LockKey has a seed of {len(seed)} bytes, not 32")
        self._secret: bytes = crypto_sign_seed_keypair(bytes(seed))[1]

    @classmethod
    def generate(cls, randbytes: Callable[[int], bytes]) -> LockKey:
        """
        Make a new key.

        @param randbytes: the source of secret random bytes.
        """
        return cls(randbytes(KEY_LENGTH))

    @classmethod
    def fromRaw(cls, raw: bytes) -> LockKey:
        """
        Make the key of 64 bytes: seed and public key.

        @raise WireError: if the length is another, or the public key is not
            that of the seed.
        """
        if len(raw) != 2 * KEY_LENGTH:
            raise WireError(f"a LockKey has {len(raw)} bytes, not 64")
        key = cls(raw[:KEY_LENGTH])
        if key._secret != raw:
            raise WireError("the halves of a LockKey do not belong together")
        return key

    @classmethod
    def parse(cls, text: str) -> LockKey:
        """
        Read the text form.

        @raise WireError: for a wrong prefix, length or digit, or halves that do
            not belong together.
        """
        return cls.fromRaw(_parseHex(text, (cls.PREFIX,), 2 * KEY_LENGTH, "LockKey"))

    def text(self) -> str:
        """The text form B{with the secret}, for the state of a node only."""
        return self.PREFIX + self._secret.hex()

    def public(self) -> LockPublic:
        """The public half."""
        return LockPublic(self._secret[KEY_LENGTH:])

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature of C{data}."""
        signed: bytes = crypto_sign(data, self._secret)
        return signed[:SIGNATURE_LENGTH]

    def __repr__(self) -> str:
        return f"<LockKey <redacted>, public {self.public().short()}>"

    def __hash__(self) -> int:
        return hash(self._secret[KEY_LENGTH:])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LockKey):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)


class Secret:
    """A text, such as an auth key, that shows itself only when asked to."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """
        @param text: what to keep.
        """
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())
