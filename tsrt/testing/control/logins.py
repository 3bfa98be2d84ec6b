"""The logins that wait for a person."""

from __future__ import annotations

import base64
from collections.abc import Callable

from attrs import define, field

from tsrt.errors import UnknownPeer
from tsrt.keys import MachinePublic
from tsrt.tailcfg import RegisterRequest
from tsrt.testing.control.records import NodeRecord

MAX_PENDING = 1000
"""How many logins may wait for a person at a time."""


@define(eq=False)
class PendingLogin:
    """
    A login that waits for a person.

    @ivar id: the secret part of its URL.
    @ivar machine: the machine that wants in.
    @ivar request: its request.
    @ivar version: its capability version.
    @ivar ends: when the URL stops working, in seconds since 1970.
    @ivar node: the node that came of it, once approved.
    @ivar refusal: why it was refused, once it was.
    @ivar waiters: called, and forgotten, when it is decided.
    """

    id: str
    machine: MachinePublic
    request: RegisterRequest
    version: int
    ends: float
    node: NodeRecord | None = None
    refusal: str = ""
    waiters: list[Callable[[], None]] = field(factory=list)

    @property
    def isDecided(self) -> bool:
        """Whether it was approved or refused."""
        return self.node is not None or bool(self.refusal)

    @property
    def hostname(self) -> str:
        """What the machine calls itself."""
        return self.request.hostinfo.hostname if self.request.hostinfo else ""

    def wake(self) -> None:
        """Tell all who wait."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()


class PendingLogins:
    """
    All logins that wait for a person, and the decided ones that nobody has
    asked after yet.
    """

    def __init__(self, randbytes: Callable[[int], bytes], lifetime: float) -> None:
        """
        @param randbytes: the source of secret random bytes.
        @param lifetime: seconds that a login waits.
        """
        self._randbytes = randbytes
        self._lifetime = lifetime
        self._logins: dict[str, PendingLogin] = {}

    def waiting(self) -> list[PendingLogin]:
        """The logins that wait, the oldest first."""
        return [login for login in self._logins.values() if not login.isDecided]

    def find(self, reference: str) -> PendingLogin | None:
        """A login by its URL or its id, decided or not."""
        return self._logins.get(reference.rpartition("/")[2])

    def get(self, reference: str) -> PendingLogin:
        """
        A login that waits, by its URL or its id.

        @raise UnknownPeer: if there is none.
        """
        login = self.find(reference)
        if login is None or login.isDecided:
            raise UnknownPeer("there is no such login, or it is over")
        return login

    def ask(
        self,
        machine: MachinePublic,
        request: RegisterRequest,
        version: int,
        now: float,
    ) -> PendingLogin:
        """Begin to wait; the same login as before if the wish is the same."""
        for login in self.waiting():
            same = login.request.nodeKey == request.nodeKey
            if login.machine == machine and same:
                return login
        while len(self._logins) >= MAX_PENDING:
            self.forget(next(iter(self._logins.values())))
        name = base64.b32encode(self._randbytes(20)).decode("ascii").lower()
        login = PendingLogin(name, machine, request, version, now + self._lifetime)
        self._logins[name] = login
        return login

    def forget(self, login: PendingLogin) -> None:
        """Drop a login; who waits for it finds that it is gone."""
        if self._logins.pop(login.id, None) is not None:
            login.wake()

    def dropOld(self, now: float) -> None:
        """Drop the logins that have waited too long."""
        for login in list(self._logins.values()):
            if login.ends <= now:
                self.forget(login)
