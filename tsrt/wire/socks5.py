"""
SOCKS version 5, as a server hears it.

References: RFC 1928, RFC 1929 (user and password).
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable
from typing import NamedTuple

from tsrt.addresses import formatAddress
from tsrt.errors import WireError

VERSION = 5
NO_AUTHENTICATION = 0
PASSWORD = 2
NO_ACCEPTABLE_METHOD = 0xFF

_AUTH_VERSION = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LENGTHS = {_IPV4: 4, _IPV6: 16}
_LONGEST_NAME = 253


class Command(enum.Enum):
    """What a client wants."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Reply(enum.Enum):
    """What became of it."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    REFUSED = 5
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


class Target(NamedTuple):
    """Where to: an address literal or a name, and a port."""

    host: str
    port: int


class Asked(NamedTuple):
    """
    What a L{Greeting} makes of some bytes.

    @ivar reply: what to send to the client.
    @ivar command: what it wants, once that is known.
    @ivar surplus: bytes behind the request.
    @ivar isOver: whether to close the connection after the reply.
    """

    reply: bytes = b""
    command: Command | None = None
    target: Target | None = None
    surplus: bytes = b""
    isOver: bool = False


def encodeReply(reply: Reply, address: bytes = bytes(4), port: int = 0) -> bytes:
    """
    The answer to a request.

    @param address: the packed address that the request got.
    """
    kind = _IPV4 if len(address) == 4 else _IPV6
    return bytes((VERSION, reply.value, 0, kind)) + address + port.to_bytes(2, "big")


def _target(data: bytes, at: int) -> tuple[Target, int] | None:
    """
    The address at an offset, and where it ends; C{None}: it is not whole.

    @raise WireError: there is no address of that kind.
    """
    if len(data) <= at + 1:
        return None
    kind = data[at]
    at += 1
    if kind == _NAME:
        length = data[at]
        at += 1
    else:
        length = _LENGTHS.get(kind, 0)
    if not length or length > _LONGEST_NAME:
        raise WireError("an address of an unknown kind")
    end = at + length
    if len(data) < end + 2:
        return None
    raw = data[at:end]
    if kind == _NAME:
        try:
            host = raw.decode("ascii")
        except UnicodeDecodeError:
            raise WireError("a name that is not ASCII") from None
        if not host.isprintable() or " " in host:
            raise WireError("a name that is none")
    else:
        host = formatAddress(raw)
    return Target(host, int.from_bytes(data[end : end + 2], "big")), end + 2


class Greeting:
    """A conversation up to the request."""

    def __init__(self, credentials: tuple[bytes, bytes] | None) -> None:
        """
        @param credentials: the user and the password that a client must have;
            C{None}: it needs none.
        """
        self._credentials = credentials
        self._buffer = b""
        self._step: Callable[[], Asked | None] = self._methods

    def feed(self, data: bytes) -> Asked:
        """
        Take what the client sent.

        @raise WireError: it does not speak the protocol.
        """
        self._buffer += data
        reply = b""
        while True:
            asked = self._step()
            if asked is None:
                return Asked(reply)
            reply += asked.reply
            if asked.isOver or asked.command is not None:
                return asked._replace(reply=reply)

    def _methods(self) -> Asked | None:
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise WireError("that is not SOCKS version 5")
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            return None
        offered, self._buffer = buffer[2 : 2 + buffer[1]], buffer[2 + buffer[1] :]
        wanted = NO_AUTHENTICATION if self._credentials is None else PASSWORD
        if wanted not in offered:
            return Asked(bytes((VERSION, NO_ACCEPTABLE_METHOD)), isOver=True)
        self._step = self._request if self._credentials is None else self._password
        return Asked(bytes((VERSION, wanted)))

    def _password(self) -> Asked | None:
        buffer = self._buffer
        if buffer and buffer[0] != _AUTH_VERSION:
            raise WireError("that is no user and password")
        if len(buffer) < 2 or len(buffer) < 3 + buffer[1]:
            return None
        user, length = buffer[2 : 2 + buffer[1]], buffer[2 + buffer[1]]
        at = 3 + buffer[1]
        if len(buffer) < at + length:
            return None
        password, self._buffer = buffer[at : at + length], buffer[at + length :]
        assert self._credentials is not None
        # Both are compared, in a time that says nothing of either.
        isUser = hmac.compare_digest(user, self._credentials[0])
        isPassword = hmac.compare_digest(password, self._credentials[1])
        if not (isUser and isPassword):
            return Asked(bytes((_AUTH_VERSION, 1)), isOver=True)
        self._step = self._request
        return Asked(bytes((_AUTH_VERSION, 0)))

    def _request(self) -> Asked | None:
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise WireError("that is no SOCKS request")
        if len(buffer) < 5:
            return None
        try:
            found = _target(buffer, 3)
        except WireError:
            return Asked(encodeReply(Reply.ADDRESS_NOT_SUPPORTED), isOver=True)
        if found is None:
            return None
        target, end = found
        try:
            command = Command(buffer[1])
        except ValueError:
            command = Command.BIND
        if command is Command.BIND:
            return Asked(encodeReply(Reply.COMMAND_NOT_SUPPORTED), isOver=True)
        return Asked(b"", command, target, buffer[end:])


# -- UDP (RFC 1928, 7) -------------------------------------------------------------


def encodeDatagram(address: bytes, port: int, data: bytes) -> bytes:
    """A datagram for the client, with where it came from."""
    kind = _IPV4 if len(address) == 4 else _IPV6
    return bytes((0, 0, 0, kind)) + address + port.to_bytes(2, "big") + data


def parseDatagram(datagram: bytes) -> tuple[Target, bytes]:
    """
    A datagram of the client: where to, and what.

    @raise WireError: it is none, or a fragment, which few support.
    """
    if len(datagram) < 4 or datagram[2]:
        raise WireError("a fragment, or no SOCKS datagram")
    found = _target(datagram, 3)
    if found is None:
        raise WireError("a SOCKS datagram is cut short")
    target, end = found
    return target, datagram[end:]
