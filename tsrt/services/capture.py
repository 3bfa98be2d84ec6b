"""Capturing all packets of a node into a file, for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.application.service import Service

from tsrt.errors import ConfigError
from tsrt.runtime.capture import Capture


class CaptureService(Service):
    """Begins a capture as it starts, and ends it as it stops."""

    name = "capture"

    def __init__(
        self,
        begin: Callable[[Path], Capture],
        path: Path,
        failed: Callable[[ConfigError], object],
    ) -> None:
        """
        @param begin: L{Node.capturePcap<tsrt.node.Node.capturePcap>}.
        @param path: the file.
        @param failed: told that it cannot be written.
        """
        self._begin = begin
        self._failed = failed
        self._path = path
        self._capture: Capture | None = None

    def startService(self) -> None:
        """Begin."""
        super().startService()
        try:
            self._capture = self._begin(self._path)
        except ConfigError as error:
            self._failed(error)

    def stopService(self) -> None:
        """The file is whole."""
        super().stopService()
        if self._capture is not None:
            self._capture.stop()
            self._capture = None
