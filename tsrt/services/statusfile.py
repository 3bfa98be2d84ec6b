"""A small JSON file that tells scripts how the node is doing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from twisted.application.service import Service
from twisted.logger import Logger

from tsrt.runtime.status import NodeStatus

_log = Logger(namespace="tsrt.status")


def statusDocument(status: NodeStatus) -> dict[str, object]:
    """The status as plain JSON values, without any secret."""
    return {
        "state": status.state.value,
        "name": status.name,
        "addresses": list(status.addresses),
        "tailnet": status.tailnet,
        "magicDNSSuffix": status.magicDNSSuffix,
        "user": status.user,
        "tags": list(status.tags),
        "loginURL": status.loginURL,
        "homeRegion": status.homeRegion,
        "keyExpiry": status.keyExpiry.isoformat() if status.keyExpiry else None,
        "peerCount": status.peerCount,
        "paths": {
            name: {
                "path": path.path,
                "why": path.why,
                "since": path.since.isoformat(),
                "latencySeconds": path.latency,
            }
            for name, path in status.paths.items()
        },
        "health": list(status.health),
        "error": status.error.describe() if status.error else None,
    }


class StatusFileService(Service):
    """Rewrites the file, atomically, whenever the status changes."""

    def __init__(
        self,
        watch: Callable[[Callable[[NodeStatus], object]], Callable[[], None]],
        path: Path,
    ) -> None:
        """
        @param watch: the node's C{watchStatus}.
        """
        self._watch = watch
        self._path = path
        self._unwatch: Callable[[], None] | None = None

    def startService(self) -> None:
        """Write the present status and follow it."""
        super().startService()
        self._unwatch = self._watch(self._write)

    def stopService(self) -> None:
        """Follow no more; the file goes, as it would no longer be true."""
        super().stopService()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _write(self, status: NodeStatus) -> None:
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            temporary.write_text(json.dumps(statusDocument(status), indent=1) + "\n")
            os.replace(temporary, self._path)
        except OSError as error:
            _log.warn(
                "the status file {path} cannot be written: {reason}",
                path=str(self._path),
                reason=error.strerror,
            )
