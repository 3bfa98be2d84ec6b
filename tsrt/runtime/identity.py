"""
Loading and saving who the node is.

The entries of the state store have the names and the form that Tailscale's own
daemon gives them, as far as both know the same things.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

from twisted.logger import Logger

from tsrt.control.settings import Identity, LoginInfo
from tsrt.errors import StateCorrupt, StateError, WireError
from tsrt.interfaces import IStateStore
from tsrt.keys import DiscoKey, LockKey, MachineKey, NodeKey
from tsrt.tunnel.timestamps import TimestampSource

_log = Logger(namespace="tsrt.state")

MACHINE_KEY = "_machinekey"
CURRENT_PROFILE = "_current-profile"
PROFILES = "_profiles"
PROFILE = "profile-tsrt"
LOG_ID = "_tsrt-logid"
TIMESTAMP = "_tsrt-timestamp"

_BACKEND_LOG_ID_LENGTH = 32

K = TypeVar("K", MachineKey, NodeKey, LockKey)


class IdentityKeeper:
    """Reads and writes the keys of one node in a state store."""

    def __init__(
        self,
        store: IStateStore,
        randbytes: Callable[[int], bytes],
        controlURL: str,
    ) -> None:
        """
        @param store: open, and the caller's to close.
        @param controlURL: keys of a node belong to one control server; those
            of another are not used.
        """
        self._store = store
        self._randbytes = randbytes
        self._controlURL = controlURL

    def load(self, disco: DiscoKey) -> Identity:
        """
        Read the identity; make and save what there is not yet.

        @param disco: this run's key for path discovery, which is never saved.
        @raise StateCorrupt: an entry is not what it should be.
        """
        machine = self._machineKey()
        logID = self._store.read(LOG_ID)
        if logID is None or len(logID) != 2 * _BACKEND_LOG_ID_LENGTH:
            logID = self._randbytes(_BACKEND_LOG_ID_LENGTH).hex().encode("ascii")
            self._store.write(LOG_ID, logID)
        config = self._profile()
        return Identity(
            machineKey=machine,
            lockKey=_key(LockKey, config.get("NetworkLockKey"))
            or LockKey.generate(self._randbytes),
            discoPublic=disco.public(),
            backendLogID=logID.decode("ascii", "replace"),
            nodeKey=_key(NodeKey, config.get("PrivateNodeKey")),
            oldNodeKey=_key(NodeKey, config.get("OldPrivateNodeKey")),
        )

    def _machineKey(self) -> MachineKey:
        saved = self._store.read(MACHINE_KEY)
        if saved is not None:
            key = _key(MachineKey, saved.decode("ascii", "replace"))
            if key is not None:
                return key
        key = MachineKey.generate(self._randbytes)
        self._store.write(MACHINE_KEY, key.text().encode("ascii"))
        return key

    def _profile(self) -> dict[str, object]:
        """The saved keys for this control server, if there are any."""
        saved = self._store.read(PROFILE)
        if saved is None:
            return {}
        try:
            profile = json.loads(saved)
            config = profile["Config"]
            server = profile["ControlURL"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StateCorrupt("the saved keys of the node are damaged") from None
        if not isinstance(config, dict):
            raise StateCorrupt("the saved keys of the node are damaged")
        if server != self._controlURL:
            _log.info(
                "the saved node key is for {server}; joining {ours} afresh",
                server=server,
                ours=self._controlURL,
            )
            return {}
        return config

    def save(self, identity: Identity, login: LoginInfo | None = None) -> None:
        """
        Write the node's keys.

        @raise StateError: they cannot be written.
        """
        config: dict[str, object] = {"NetworkLockKey": identity.lockKey.text()}
        if identity.nodeKey is not None:
            config["PrivateNodeKey"] = identity.nodeKey.text()
        if identity.oldNodeKey is not None:
            config["OldPrivateNodeKey"] = identity.oldNodeKey.text()
        if login is not None:
            config["UserProfile"] = {
                "ID": login.userID,
                "LoginName": login.loginName,
                "DisplayName": login.displayName,
            }
        profile = {"ControlURL": self._controlURL, "Config": config}
        self._store.write(PROFILE, json.dumps(profile).encode("utf-8"))
        self._store.write(CURRENT_PROFILE, PROFILE.encode("ascii"))

    def forget(self) -> None:
        """Delete the node key: the node has left the tailnet."""
        self._store.delete(PROFILE)
        self._store.delete(CURRENT_PROFILE)

    def timestamps(self, wallclock: Callable[[], float]) -> TimestampSource:
        """
        The source of WireGuard timestamps, which goes on where it stopped.

        @raise StateCorrupt: what was saved is no timestamp.
        """
        try:
            return TimestampSource(
                wallclock, self._store.read(TIMESTAMP) or b"", save=self._reserve
            )
        except WireError as error:
            raise StateCorrupt(f"the saved timestamp is damaged: {error}") from None

    def _reserve(self, reservation: bytes) -> None:
        try:
            self._store.write(TIMESTAMP, reservation)
        except StateError as error:
            # Handshakes go on; only after a crash may peers ignore the node
            # until its clock has caught up.
            _log.warn("a timestamp could not be saved: {reason}", reason=str(error))

    def saveTimestamp(self, source: TimestampSource) -> None:
        """Write the newest timestamp, so that the next run follows it closely."""
        if source.last:
            self._reserve(source.last)


def _key(kind: type[K], text: object) -> K | None:
    """Read a saved key; C{None} if there is none."""
    if not text:
        return None
    try:
        return kind.parse(str(text))
    except WireError:
        raise StateCorrupt(f"a saved {kind.__name__} is damaged") from None
