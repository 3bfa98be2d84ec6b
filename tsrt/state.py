"""
Where a node keeps its keys: a directory with a lock, or memory.

The file has the form that Tailscale users know: C{tailscaled.state}, one JSON
object from names to base64 values.  It is replaced as a whole and atomically,
with mode 0600, in a directory with mode 0700 that one node at a time may use.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from zope.interface import implementer

from tsrt.errors import StateCorrupt, StateLocked, StateUnreadable
from tsrt.interfaces import IStateStore

STATE_FILE = "tailscaled.state"
LOCK_FILE = "tsrt.lock"

# A node keeps a few kilobytes; more than this is not ours.
_LARGEST_FILE = 16 * 1024 * 1024


@implementer(IStateStore)
class MemoryStateStore:
    """Keeps state as long as the object lives, for tests and ephemeral nodes."""

    isPersistent = False

    def __init__(self) -> None:
        self._entries: dict[str, bytes] = {}
        self._isOpen = False

    def open(self) -> None:
        """Take the store; a second node may not share it."""
        if self._isOpen:
            raise StateLocked("this memory state is already in use by another node")
        self._isOpen = True

    def read(self, name: str) -> bytes | None:
        """Return what was written under C{name}, or C{None}."""
        return self._entries.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Replace what is kept under C{name}."""
        self._entries[name] = bytes(data)

    def delete(self, name: str) -> None:
        """Forget C{name}."""
        self._entries.pop(name, None)

    def close(self) -> None:
        """Give the store back; its content stays."""
        self._isOpen = False

    def __repr__(self) -> str:
        return f"<MemoryStateStore with {len(self._entries)} entries>"


@implementer(IStateStore)
class FileStateStore:
    """Keeps state in a directory, which it locks while it is open."""

    isPersistent = True

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """
        @param directory: made with mode 0700 when it does not exist.
        """
        self._directory = Path(directory)
        self._entries: dict[str, bytes] = {}
        self._lock: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<FileStateStore {str(self._directory)!r}>"

    @property
    def path(self) -> Path:
        """The state file."""
        return self._directory / STATE_FILE

    def open(self) -> None:
        """
        Make and lock the directory and read the file.

        @raise StateLocked: another node holds the lock; names its process.
        @raise StateUnreadable: the directory or the file cannot be used.
        @raise StateCorrupt: the file is not a state file.
        """
        if self._lock is not None:
            raise StateLocked(
                f"the state directory {self._directory} is already in use "
                "by this very object"
            )
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError:
            raise StateUnreadable(
                f"{self._directory} is a file, not a directory",
                advice="Name a directory for the state.",
            ) from None
        except OSError as error:
            raise StateUnreadable(
                f"the state directory {self._directory} cannot be made: "
                f"{error.strerror}"
            ) from error
        lock = self._takeLock()
        try:
            self._entries = self._load()
            self._checkWritable()
        except BaseException:
            lock.close()
            raise
        self._lock = lock

    def read(self, name: str) -> bytes | None:
        """Return what was written under C{name}, or C{None}."""
        return self._entries.get(name)

    def write(self, name: str, data: bytes) -> None:
        """
        Replace what is kept under C{name}; durable when this returns.

        @raise StateUnreadable: the file cannot be written; the former
            content stays.
        """
        if self._entries.get(name) == data:
            return
        self._save({**self._entries, name: bytes(data)})

    def delete(self, name: str) -> None:
        """Forget C{name}."""
        if name in self._entries:
            remaining = dict(self._entries)
            del remaining[name]
            self._save(remaining)

    def close(self) -> None:
        """Release the lock."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()
        self._entries = {}

    # -- the lock -----------------------------------------------------------

    def _takeLock(self) -> IO[bytes]:
        path = self._directory / LOCK_FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateUnreadable(
                f"the lock file {path} cannot be opened: {error.strerror}"
            ) from error
        lock = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            _lockExclusively(lock)
        except OSError as error:
            holder = _holderOf(path)
            lock.close()
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise StateUnreadable(
                    f"the state directory {self._directory} cannot be locked: "
                    f"{error.strerror}"
                ) from error
            raise StateLocked(
                f"the state directory {self._directory} is in use by another "
                f"node ({holder})"
            ) from None
        lock.truncate(0)
        lock.write(b"%d\n" % os.getpid())
        return lock

    # -- the file -------------------------------------------------------------

    def _load(self) -> dict[str, bytes]:
        try:
            with open(self.path, "rb") as file:
                text = file.read(_LARGEST_FILE + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateUnreadable(
                f"the state file {self.path} cannot be read: {error.strerror}"
            ) from error
        try:
            if len(text) > _LARGEST_FILE:
                raise ValueError("it is too large")
            document = json.loads(text)
            if not isinstance(document, dict):
                raise ValueError("it is not a JSON object")
            return {
                str(name): base64.b64decode(value, validate=True)
                for name, value in document.items()
            }
        except (ValueError, TypeError, RecursionError, binascii.Error) as error:
            raise StateCorrupt(
                f"the state file {self.path} is damaged: {error}"
            ) from None

    def _checkWritable(self) -> None:
        if not os.access(self._directory, os.W_OK):
            raise StateUnreadable(
                f"the state directory {self._directory} is not writable"
            )

    def _save(self, entries: dict[str, bytes]) -> None:
        if self._lock is None:
            raise StateUnreadable(
                f"the state directory {self._directory} is not open",
                advice="This is a mistake in the program, not in the directory.",
            )
        text = json.dumps(
            {
                name: base64.b64encode(value).decode("ascii")
                for name, value in sorted(entries.items())
            },
            indent=1,
        ).encode("ascii")
        try:
            _replaceFile(self.path, text)
        except OSError as error:
            raise StateUnreadable(
                f"the state file {self.path} cannot be written: {error.strerror}"
            ) from error
        self._entries = entries


def _replaceFile(path: Path, content: bytes) -> None:
    """Put C{content} at C{path}, so that a crash leaves the old or the new."""
    descriptor, name = tempfile.mkstemp(  # mode 0600
        prefix=f".{path.name}.", dir=path.parent
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if sys.platform != "win32":
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _holderOf(path: Path) -> str:
    """Name the process that wrote its id into the lock file."""
    try:
        return f"process {int(path.read_bytes()[:20])}"
    except (OSError, ValueError):
        return "process unknown"


if sys.platform == "win32":
    import msvcrt

    def _lockExclusively(file: IO[bytes]) -> None:
        """Lock C{file} far behind its content, which stays readable."""
        file.seek(1 << 30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _lockExclusively(file: IO[bytes]) -> None:
        """Lock C{file}, or raise L{OSError} at once."""
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
