"""Tests for L{tsrt.state}."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from tsrt.errors import StateCorrupt, StateLocked, StateUnreadable
from tsrt.interfaces import IStateStore
from tsrt.state import STATE_FILE, FileStateStore, MemoryStateStore


class StateStoreMixin:
    """What every store does; subclasses say how to make one."""

    def makeStore(self):
        """Return a store that has not been opened."""
        raise SkipTest("the mixin itself has no store")

    def test_interface(self):
        """The store provides L{IStateStore}."""
        verifyObject(IStateStore, self.makeStore())

    def test_unknownNameReadsNone(self):
        """A name that was never written reads as C{None}."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        self.assertIsNone(store.read("nothing"))

    def test_writeReadDelete(self):
        """What is written is read back until it is deleted."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        store.write("name", b"\x00\xffvalue")
        store.write("other", b"2")
        self.assertEqual(store.read("name"), b"\x00\xffvalue")
        store.delete("name")
        store.delete("name")
        self.assertIsNone(store.read("name"))
        self.assertEqual(store.read("other"), b"2")

    def test_survivesReopening(self):
        """A closed store gives the same values when it is opened again."""
        store = self.makeStore()
        store.open()
        store.write("name", b"value")
        store.close()
        store.open()
        self.addCleanup(store.close)
        self.assertEqual(store.read("name"), b"value")

    def test_secondOpenerIsRefused(self):
        """A store that is in use cannot be opened again."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        with self.assertRaises(StateLocked):
            store.open()

    def test_reprShowsNoSecrets(self):
        """The repr of a store holds none of its values."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        store.write("name", b"hush-hush")
        self.assertNotIn("hush-hush", repr(store))


class MemoryStateStoreTests(StateStoreMixin, SynchronousTestCase):
    """L{MemoryStateStore} meets the contract."""

    def makeStore(self):
        return MemoryStateStore()


class FileStateStoreTests(StateStoreMixin, SynchronousTestCase):
    """L{FileStateStore} meets the contract, and keeps its file safe."""

    def setUp(self):
        self.directory = Path(self.mktemp()) / "state"

    def makeStore(self):
        return FileStateStore(self.directory)

    def test_R_KEY_2_modes(self):
        """The directory has mode 0700 and the file 0600."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        store.write("k", b"v")
        self.assertEqual(stat.S_IMODE(self.directory.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(store.path.stat().st_mode), 0o600)

    test_R_CFG_4_fileModeRestricted = test_R_KEY_2_modes

    def test_lockNamesHolder(self):
        """A second node learns the directory and the process that has it."""
        first, second = self.makeStore(), self.makeStore()
        first.open()
        self.addCleanup(first.close)
        error = self.assertRaises(StateLocked, second.open)
        self.assertIn(str(self.directory), str(error))
        self.assertIn(f"process {os.getpid()}", str(error))

    def test_lockHoldsAcrossProcesses(self):
        """A node in another process is refused too."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        code = (
            "import sys; from tsrt.state import FileStateStore\n"
            "from tsrt.errors import StateLocked\n"
            "try: FileStateStore(sys.argv[1]).open()\n"
            "except StateLocked: sys.exit(7)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, os.fspath(self.directory)])
        self.assertEqual(done.returncode, 7)

    def test_lockReleasedOnClose(self):
        """After close another store may use the directory."""
        first, second = self.makeStore(), self.makeStore()
        first.open()
        first.close()
        second.open()
        second.close()

    def test_damagedFiles(self):
        """Damaged files are named as such, left alone, and leave no lock."""
        self.directory.mkdir(parents=True)
        path = self.directory / STATE_FILE
        for content in (
            b"",
            b"{",
            b"[]",
            b'{"a": 1}',
            b'{"a": "%%%"}',
            b'{"a": "AA',
            b"\xff\xfe",
            b"[" * 100_000,
        ):
            path.write_bytes(content)
            error = self.assertRaises(StateCorrupt, self.makeStore().open)
            self.assertIn(str(path), str(error))
            self.assertEqual(path.read_bytes(), content)

    def test_directoryIsAFile(self):
        """A plain file where the directory should be is a clear error."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_text("x")
        error = self.assertRaises(StateUnreadable, self.makeStore().open)
        self.assertIn("is a file", str(error))

    def test_unreadableFile(self):
        """A state file that cannot be read is a typed error."""
        (self.directory / STATE_FILE).mkdir(parents=True)
        self.assertRaises(StateUnreadable, self.makeStore().open)

    def test_failedWriteKeepsTheOld(self):
        """When the file cannot be replaced, the former values stay."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        store.write("k", b"old")
        saved = store.path.read_bytes()

        def refuse(source, target):
            raise OSError(28, "No space left on device")

        self.patch(os, "replace", refuse)
        error = self.assertRaises(StateUnreadable, store.write, "k", b"new")
        self.assertIn("No space left", str(error))
        self.assertEqual(store.read("k"), b"old")
        self.assertEqual(store.path.read_bytes(), saved)
        left = [p.name for p in self.directory.iterdir() if p.name.startswith(".")]
        self.assertEqual(left, [])

    def test_fileIsJSONOfBase64(self):
        """The file is the JSON object of base64 values that users know."""
        store = self.makeStore()
        store.open()
        self.addCleanup(store.close)
        store.write("_machinekey", b"abc")
        self.assertEqual(json.loads(store.path.read_text()), {"_machinekey": "YWJj"})

    def test_writeWhenClosedIsRefused(self):
        """Nothing is written without the lock."""
        self.assertRaises(StateUnreadable, self.makeStore().write, "k", b"v")
