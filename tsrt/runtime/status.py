"""What a node tells its users about itself: one value, replaced as it changes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from attrs import evolve, field, frozen
from twisted.logger import Logger

from tsrt.errors import TSRTError
from tsrt.runtime.peerpaths import NO_PATHS, PeerPath

_log = Logger(namespace="tsrt.status")


@frozen
class HealthWarning:
    """
    Something that is wrong.

    @ivar code: what kind of thing it is, for programs; the code that Tailscale has
        for it, if it has one.
    @ivar text: the same in a sentence, for people.
    """

    code: str
    text: str


class NodeState(enum.Enum):
    """The states that Tailscale users know, by their names."""

    NO_STATE = "NoState"
    NEEDS_LOGIN = "NeedsLogin"
    NEEDS_MACHINE_AUTH = "NeedsMachineAuth"
    STOPPED = "Stopped"
    STARTING = "Starting"
    RUNNING = "Running"


@frozen(kw_only=True)
class NodeStatus:
    """
    A node at one moment.

    @ivar state: where it is on the way to a working tailnet address.
    @ivar addresses: its tailnet addresses as text, IPv4 first.
    @ivar name: its full MagicDNS name without a trailing dot.
    @ivar tailnet: the tailnet's name, as control calls it.
    @ivar magicDNSSuffix: the domain of the tailnet's names.
    @ivar user: the login name of its owner.
    @ivar tags: its tags.
    @ivar loginURL: what a person has to open to let it in, if anything.
    @ivar homeRegion: the code of its home relay region.
    @ivar exitNode: the MagicDNS name of the exit node that is in use, if any.
    @ivar keyExpiry: when somebody has to log in again.
    @ivar peerCount: how many peers the netmap has.
    @ivar paths: how packets to the peers go and why, by MagicDNS name: a view
        that tells what is so when it is read.
    @ivar warnings: what is wrong, with codes; empty when all is well.
    @ivar expired: whether the node key has expired.
    @ivar error: the error that ended the node's work, if one did.
    """

    state: NodeState = NodeState.NO_STATE
    addresses: tuple[str, ...] = ()
    name: str = ""
    tailnet: str = ""
    magicDNSSuffix: str = ""
    user: str = ""
    tags: tuple[str, ...] = ()
    loginURL: str = ""
    homeRegion: str = ""
    exitNode: str = ""
    keyExpiry: datetime | None = None
    peerCount: int = 0
    paths: Mapping[str, PeerPath] = field(default=NO_PATHS, eq=id)
    warnings: tuple[HealthWarning, ...] = ()
    expired: bool = False
    error: TSRTError | None = field(default=None, eq=False)

    @property
    def health(self) -> tuple[str, ...]:
        """What is wrong, in sentences; empty when all is well."""
        return tuple(warning.text for warning in self.warnings)

    @property
    def isRunning(self) -> bool:
        """Whether the node has addresses and can talk to its peers."""
        return self.state is NodeState.RUNNING


class StatusPublisher:
    """Holds the present status and tells its watchers of each new one."""

    def __init__(self) -> None:
        self._status = NodeStatus()
        self._watchers: list[Callable[[NodeStatus], object]] = []

    @property
    def status(self) -> NodeStatus:
        """The present status."""
        return self._status

    def update(self, **changes: Any) -> None:
        """
        Replace parts of the status; watchers hear of it if it changed.

        @param changes: attributes of L{NodeStatus}.
        """
        former, self._status = self._status, evolve(self._status, **changes)
        if former == self._status and former.error is self._status.error:
            return
        for watcher in list(self._watchers):
            self._tell(watcher)

    def watch(self, callback: Callable[[NodeStatus], object]) -> Callable[[], None]:
        """
        Call C{callback} with the present status and with each new one.

        @return: a callable that ends this.
        """
        self._watchers.append(callback)
        self._tell(callback)

        def stop() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return stop

    def _tell(self, watcher: Callable[[NodeStatus], object]) -> None:
        try:
            watcher(self._status)
        except Exception:
            _log.failure("A status watcher raised an error")


# Keys of what is wrong, by their beginnings, and Tailscale's codes for them.
_CODES = {
    "captive-portal": "captive-portal-detected",
    "control-map": "not-in-map-poll",
    "control": "control-trouble",
    "network": "network-status",
    "relay-problem-": "derp-region-error",
    "relay-": "no-derp-connection",
    "server-": "control-health",
}


def codeOf(key: str) -> str:
    """The code of what is wrong under a key."""
    for beginning, code in _CODES.items():
        if key == beginning or (beginning.endswith("-") and key.startswith(beginning)):
            return code
    return key


LONGEST_TEXT = 500
"""Characters of one health text; servers may send longer ones."""

MOST_TEXTS = 50
"""Health texts of one origin."""


def presentable(text: str) -> str:
    """
    What a server says, fit for a line of a terminal or a log.

    @return: at most L{LONGEST_TEXT} characters, all printable.
    """
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 3] + "..."
    return "".join(c if c.isprintable() else " " for c in text).strip()


class Health:
    """What is wrong at the moment, each under a key of its own."""

    def __init__(self, changed: Callable[[tuple[HealthWarning, ...]], object]) -> None:
        """
        @param changed: told all warnings whenever one comes, goes or changes.
        """
        self._changed = changed
        self._texts: dict[str, str] = {}

    def set(self, key: str, text: str | None) -> None:
        """Note what is wrong under C{key}; C{None} or empty: nothing is."""
        text = presentable(text) if text else None
        if self._texts.get(key) == (text or None):
            return
        if text:
            self._texts[key] = text
        else:
            self._texts.pop(key, None)
        self._changed(
            tuple(HealthWarning(codeOf(k), t) for k, t in sorted(self._texts.items()))
        )

    def replace(self, prefix: str, texts: list[str]) -> None:
        """Replace everything noted under keys that begin with C{prefix}."""
        wanted = {f"{prefix}{i}": text for i, text in enumerate(texts[:MOST_TEXTS])}
        for key in [k for k in self._texts if k.startswith(prefix)]:
            if key not in wanted:
                self.set(key, None)
        for key, text in wanted.items():
            self.set(key, text)
