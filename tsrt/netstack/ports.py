"""
Who has which port, and which port is free.

A binding covers a scope: one address, all of IPv4 (C{4}), all of IPv6 (C{6})
or everything (L{None}).  Two bindings of a port collide when they cover an
address in the same way.  A binding of one address does not collide with
wildcards and goes before them; IPv4 alone and IPv6 alone live side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

from tsrt.errors import NoFreePort, PortInUse, TSRTError

Scope: TypeAlias = "bytes | int | None"
"""A packed address, 4, 6, or L{None} for everything."""

FIRST_EPHEMERAL = 49152
LAST_EPHEMERAL = 65535
"""The range of RFC 6335 section 6, both ends included."""

_COUNT = LAST_EPHEMERAL - FIRST_EPHEMERAL + 1

Item = TypeVar("Item")


class AddressNotAvailable(TSRTError, LookupError):
    """This node has no address that the packets could come from."""

    advice = "Wait until the node is up; check that it has the address family."


class BindingClosed(TSRTError, OSError):
    """The handle was closed, by its owner or with the stack's address."""


def checkScope(scope: Scope) -> None:
    """
    @raise ValueError: if C{scope} is not one.
    """
    if isinstance(scope, bytes):
        good = len(scope) in (4, 16)
    else:
        good = scope in (None, 4, 6)
    if not good:
        raise ValueError(f"not an address or address family: {scope!r}")


def checkPort(port: int, lowest: int = 1) -> None:
    """
    @raise ValueError: if C{port} is no port, or below C{lowest}.
    """
    if not lowest <= port <= 65535:
        raise ValueError(f"port {port} outside {lowest}..65535")


def covers(scope: Scope, address: bytes) -> bool:
    """Whether a binding of C{scope} takes what is sent to C{address}."""
    if scope is None:
        return True
    if isinstance(scope, int):
        return scope == (4 if len(address) == 4 else 6)
    return scope == address


def chooseEphemeral(
    randbytes: Callable[[int], bytes], usable: Callable[[int], bool]
) -> int:
    """
    Choose an ephemeral port at random (RFC 6056 algorithm 1).

    @param usable: whether a port may be chosen.
    @raise NoFreePort: if none may.
    """
    start = int.from_bytes(randbytes(2), "big") % _COUNT
    for step in range(_COUNT):
        port = FIRST_EPHEMERAL + (start + step) % _COUNT
        if usable(port):
            return port
    raise NoFreePort("all ephemeral ports are taken")


class PortTable(Generic[Item]):
    """The bindings of one transport protocol."""

    __slots__ = ("_bindings", "_users")

    def __init__(self) -> None:
        self._bindings: dict[tuple[Scope, int], Item] = {}
        self._users: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._bindings)

    def items(self) -> list[tuple[Scope, Item]]:
        """All bindings with their scopes, as they are now."""
        return [(scope, item) for (scope, _), item in self._bindings.items()]

    def isUsed(self, port: int) -> bool:
        """Whether the port is bound in any scope."""
        return port in self._users

    def isFree(self, scope: Scope, port: int) -> bool:
        """Whether a binding of C{scope} would collide with none."""
        bindings = self._bindings
        if (scope, port) in bindings:
            return False
        if scope is None:
            return (4, port) not in bindings and (6, port) not in bindings
        return isinstance(scope, bytes) or (None, port) not in bindings

    def choose(
        self,
        port: int,
        scope: Scope,
        limit: int,
        randbytes: Callable[[int], bytes],
    ) -> int:
        """
        Check what somebody wants to bind.

        @param port: 0 picks an ephemeral port that is bound in no scope.
        @param limit: most bindings that the table may have.
        @return: the port to bind.
        @raise ValueError: if C{port} or C{scope} is none.
        @raise NoFreePort: if no port is free, or the table is full.
        """
        checkPort(port, 0)
        checkScope(scope)
        if len(self) >= limit:
            raise NoFreePort("too many ports are bound")
        if port:
            return port
        return chooseEphemeral(randbytes, lambda port: port not in self._users)

    def add(self, scope: Scope, port: int, item: Item) -> None:
        """
        Bind C{port}.

        @raise PortInUse: if it collides with another binding.
        """
        if not self.isFree(scope, port):
            raise PortInUse(f"port {port} is in use")
        self._bindings[scope, port] = item
        self._users[port] = self._users.get(port, 0) + 1

    def remove(self, scope: Scope, port: int, item: Item) -> None:
        """Give C{port} back, if C{item} is what it is bound to."""
        if self._bindings.get((scope, port)) is not item:
            return
        del self._bindings[scope, port]
        left = self._users[port] - 1
        if left:
            self._users[port] = left
        else:
            del self._users[port]

    def find(self, address: bytes, port: int) -> Item | None:
        """Who gets what is sent to C{address} and C{port}."""
        if port not in self._users:
            return None
        bindings = self._bindings
        item = bindings.get((address, port))
        if item is None:
            item = bindings.get((4 if len(address) == 4 else 6, port))
            if item is None:
                item = bindings.get((None, port))
        return item
