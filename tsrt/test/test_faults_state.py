"""
State directories that are shared, damaged, unreadable, or full.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest

from tsrt.errors import (
    StateCorrupt,
    StateError,
    StateLocked,
    StateUnreadable,
    TSRTError,
)
from tsrt.node import Node
from tsrt.runtime.status import NodeState
from tsrt.state import LOCK_FILE, STATE_FILE, FileStateStore
from tsrt.test.faultworld import FaultTestCase
from tsrt.test.test_node import NodeTestCase


class DamageTests(NodeTestCase):
    """A node is started on what is left of its state."""

    def setUp(self) -> None:
        self.net = self.tailnet()
        self.directory = Path(self.mktemp())
        self.path = self.directory / STATE_FILE
        self.addNode()
        self.net.waitUp("a")
        self.net.wait(self.net["a"].stopService())
        self.good = self.path.read_bytes()

    def addNode(self) -> Node:
        return self.net.addNode("a", state=FileStateStore(self.directory))

    def startOn(self, content: bytes) -> TSRTError | None:
        """
        Start the node with another state file.

        @return: what it ends with; C{None} if it goes on.
        """
        self.path.write_bytes(content)
        node = self.addNode()
        if node.status.error is None:
            self.net.wait(node.stopService())
            return None
        error = node.status.error
        self.assertIs(node.status.state, NodeState.STOPPED)
        self.failureResultOf(node.up(), StateError)
        self.assertEqual(self.path.read_bytes(), content)
        self.assertTrue(error.advice)
        self.net.wait(node.stopService())
        # Neither lock nor timer is left.
        store = FileStateStore(self.directory)
        self.path.write_bytes(self.good)
        store.open()
        store.close()
        return error

    def test_halfWritten(self) -> None:
        """Whatever part of the file was written, it is named as damaged."""
        for length in range(0, len(self.good) - 2, 7):
            error = self.startOn(self.good[:length])
            self.assertIsInstance(error, StateCorrupt, length)
            self.assertIn(str(self.path), str(error))

    def test_flippedBytes(self) -> None:
        """A byte that has changed is noticed, or leads to nothing worse."""
        random = Random(1)
        found = 0
        for _ in range(150):
            content = bytearray(self.good)
            content[random.randrange(len(content))] = random.randrange(256)
            error = self.startOn(bytes(content))
            if error is not None:
                self.assertIsInstance(error, StateCorrupt)
                found += 1
        self.assertGreater(found, 10)

    def test_damagedEntries(self) -> None:
        """Entries that are no keys are named as damaged."""
        document = json.loads(self.good)
        for name in document:
            for value in (b"", b"\0", b"{}", b"[]", b"null", b"privkey:", b"x" * 5000):
                spoiled = dict(document)
                spoiled[name] = base64.b64encode(value).decode("ascii")
                error = self.startOn(json.dumps(spoiled).encode("ascii"))
                self.assertTrue(error is None or isinstance(error, StateCorrupt))

    @given(st.binary(max_size=200))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def test_anyProfile(self, value: bytes) -> None:
        """Whatever is saved as the node's keys."""
        document = json.loads(self.good)
        document["profile-tsrt"] = base64.b64encode(value).decode("ascii")
        error = self.startOn(json.dumps(document).encode("ascii"))
        self.assertTrue(error is None or isinstance(error, StateCorrupt))

    @given(
        st.dictionaries(
            st.sampled_from(["Config", "ControlURL", "x"]),
            st.recursive(
                st.none() | st.integers() | st.text(max_size=8),
                lambda inner: (
                    st.lists(inner, max_size=2)
                    | st.dictionaries(
                        st.sampled_from(
                            ["PrivateNodeKey", "OldPrivateNodeKey", "NetworkLockKey"]
                        ),
                        inner,
                        max_size=3,
                    )
                ),
                max_leaves=4,
            ),
        )
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    def test_anyJSONProfile(self, profile: object) -> None:
        """Whatever JSON is saved as the node's keys."""
        if isinstance(profile, dict) and "ControlURL" in profile:
            profile["ControlURL"] = "http://192.168.255.1"
        document = json.loads(self.good)
        value = json.dumps(profile).encode("ascii")
        document["profile-tsrt"] = base64.b64encode(value).decode("ascii")
        error = self.startOn(json.dumps(document).encode("ascii"))
        self.assertTrue(error is None or isinstance(error, StateCorrupt))

    def test_unreadable(self) -> None:
        """A file that may not be read; what to look at is said."""
        if os.geteuid() == 0:
            # To root everything is readable but a directory.
            self.path.unlink()
            self.path.mkdir()
        else:
            self.path.chmod(0)
        node = self.addNode()
        error = self.failureResultOf(node.up(), StateUnreadable).value
        self.assertIn(str(self.path), str(error))
        self.assertIn("mode", error.describe())

    def test_readOnlyDirectory(self) -> None:
        """A directory that may not be written."""
        if os.geteuid() == 0:
            raise SkipTest("root may write everywhere")
        self.directory.chmod(0o500)
        self.addCleanup(self.directory.chmod, 0o700)
        node = self.addNode()
        self.failureResultOf(node.up(), StateUnreadable)

    def test_directoryIsAFile(self) -> None:
        """A state directory that is a file."""
        node = self.net.addNode("c", state=FileStateStore(self.path))
        error = self.failureResultOf(node.up(), StateUnreadable).value
        self.assertIn("not a directory", str(error))

    def test_lockFileIsADirectory(self) -> None:
        """A lock that cannot be opened."""
        (self.directory / LOCK_FILE).unlink()
        (self.directory / LOCK_FILE).mkdir()
        node = self.addNode()
        self.failureResultOf(node.up(), StateUnreadable)

    def test_secondStart(self) -> None:
        """A node that found its state damaged works once it is mended."""
        self.path.write_bytes(b"{")
        node = self.addNode()
        self.failureResultOf(node.up(), StateCorrupt)
        self.net.wait(node.stopService())
        self.path.write_bytes(self.good)
        node.startService()
        self.net.wait(node.up())
        self.assertIsNone(node.status.error)


class FullDiskTests(NodeTestCase):
    """Nothing can be written any more."""

    def setUp(self) -> None:
        self.net = self.tailnet()
        self.directory = Path(self.mktemp())
        self.isFull = False
        replace = os.replace

        def refuse(source: object, target: object) -> None:
            if self.isFull:
                raise OSError(28, "No space left on device")
            replace(source, target)

        self.patch(os, "replace", refuse)

    def test_atTheFirstStart(self) -> None:
        """A node that cannot save its keys does not join."""
        self.isFull = True
        node = self.net.addNode("a", state=FileStateStore(self.directory))
        with self.assertRaises(StateUnreadable) as raised:
            self.net.wait(node.up())
        self.assertIn("No space left", str(raised.exception))
        self.assertEqual(self.net.control.nodes(), [])
        self.net.wait(node.stopService())
        # The lock is free, and so is the way for a second try.
        self.isFull = False
        node.startService()
        self.net.wait(node.up())

    def test_atEveryWrite(self) -> None:
        """Whichever write fails first, the node ends with that error or works."""
        ends = set()
        for count in range(12):
            directory = Path(self.mktemp())
            left = [count]
            replace = os.replace

            def refuse(
                source: object,
                target: object,
                left: list[int] = left,
                replace: object = replace,
            ) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(28, "No space left on device")
                replace(source, target)

            self.patch(os, "replace", refuse)
            node = self.net.addNode(f"n{count}", state=FileStateStore(directory))
            try:
                self.net.wait(node.up(), limit=90)
            except StateUnreadable as error:
                self.assertIn("No space left", str(error))
                ends.add("refused")
            else:
                ends.add("up")
            self.net.wait(node.stopService())
            store = FileStateStore(directory)
            store.open()
            store.close()
            self.patch(os, "replace", replace)
        self.assertEqual(ends, {"refused", "up"})
        self.flushLoggedErrors(StateUnreadable)

    def test_whileRunning(self) -> None:
        """A running node goes on, keeps its sessions fresh, and stops cleanly."""
        self.net.addNode("a", state=FileStateStore(self.directory))
        self.net.addNode("b")
        self.net.waitUp("a", "b")
        self.isFull = True
        for _ in range(5):
            self.net.elapse(1000)
            self.net.wait(self.net["a"].ping("b"))
        began = self.net.clock.seconds()
        self.net.wait(self.net["a"].stopService())
        self.assertLess(self.net.clock.seconds() - began, 10)
        self.isFull = False
        self.net["a"].startService()
        self.net.waitUp("a")
        self.net.wait(self.net["a"].ping("b"))


class SharedDirectoryTests(FaultTestCase):
    """Two nodes on one directory."""

    def test_secondNode(self) -> None:
        """The second one says who has it; the first one does not notice."""
        directory = self.mktemp()
        self.makeTailnet()
        self.net.addNode("c", state=FileStateStore(directory))
        self.net.waitUp("c")
        before = sorted(os.listdir(directory))
        for _ in range(5):
            second = self.net.addNode("d", state=FileStateStore(directory))
            error = self.failureResultOf(second.up(), StateLocked).value
            self.assertIn(directory, str(error))
            self.assertIn(f"process {os.getpid()}", str(error))
            self.assertIn("of its own", error.describe())
            self.net.elapse(30)
            self.net.wait(second.stopService())
        self.assertEqual(sorted(os.listdir(directory)), before)
        self.assertTrue(self.net["c"].status.isRunning)
        self.net.wait(self.net["c"].ping("b"))
        self.assertInnocent()

    def test_afterTheFirst(self) -> None:
        """When the first has stopped, the second is the same machine."""
        directory = self.mktemp()
        self.makeTailnet()
        first = self.net.addNode("c", state=FileStateStore(directory))
        [status] = self.net.waitUp("c")
        self.net.wait(first.stopService())
        self.net.addNode("d", state=FileStateStore(directory))
        [again] = self.net.waitUp("d")
        self.assertEqual(again.addresses, status.addresses)
        self.assertInnocent()
