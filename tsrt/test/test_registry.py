"""Tests for the names of nodes, and for the errors that are Twisted's too."""

from __future__ import annotations

import gc

from twisted.internet.error import DNSLookupError
from twisted.internet.error import TimeoutError as TwistedTimeoutError
from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import Persistence, TSRTError
from tsrt.failures import NoSuchPeer, TailnetTimeout
from tsrt.registry import Registry


class Thing:
    """Something that can be named."""


class RegistryTests(SynchronousTestCase):
    """L{Registry}."""

    def setUp(self) -> None:
        self.registry: Registry[Thing] = Registry()
        self.reactor = Thing()

    def test_names(self) -> None:
        """A name belongs to the first who takes it, for each reactor."""
        first, second = Thing(), Thing()
        self.assertTrue(self.registry.add(self.reactor, "main", first))
        self.assertTrue(self.registry.add(self.reactor, "main", first))
        self.assertFalse(self.registry.add(self.reactor, "main", second))
        other = Thing()
        self.assertTrue(self.registry.add(other, "main", second))
        self.assertIs(first, self.registry.find(self.reactor, "main"))
        self.assertIs(second, self.registry.find(other, "main"))
        self.assertEqual(["main"], self.registry.names(self.reactor))

    def test_unknown(self) -> None:
        """Nobody has a name that was never given."""
        self.assertIsNone(self.registry.find(self.reactor, "main"))
        self.assertEqual([], self.registry.names(self.reactor))
        self.registry.remove(self.reactor, "main", Thing())

    def test_remove(self) -> None:
        """Only who has a name can give it up."""
        first = Thing()
        self.registry.add(self.reactor, "main", first)
        self.registry.remove(self.reactor, "main", Thing())
        self.assertIs(first, self.registry.find(self.reactor, "main"))
        self.registry.remove(self.reactor, "main", first)
        self.assertIsNone(self.registry.find(self.reactor, "main"))

    def test_weak(self) -> None:
        """The table keeps nothing alive."""
        thing = Thing()
        self.registry.add(self.reactor, "main", thing)
        del thing
        gc.collect()
        self.assertIsNone(self.registry.find(self.reactor, "main"))
        self.assertEqual([], self.registry.names(self.reactor))


class FailureTests(SynchronousTestCase):
    """L{tsrt.failures}."""

    def test_timeout(self) -> None:
        """A time-out is one for tsrt, for Twisted and for Python."""
        error = TailnetTimeout("b did not answer", advice="Look there.")
        for kind in (TSRTError, TwistedTimeoutError, TimeoutError):
            self.assertIsInstance(error, kind)
        self.assertEqual("b did not answer", str(error))
        self.assertEqual("b did not answer. Look there.", error.describe())
        self.assertIs(Persistence.TRANSIENT, error.persistence)
        self.assertEqual("", str(TailnetTimeout()))

    def test_noSuchPeer(self) -> None:
        """An unknown name is a failed look-up."""
        error = NoSuchPeer("no node is called x")
        self.assertIsInstance(error, DNSLookupError)
        self.assertIn("node.peers()", error.describe())
        self.assertEqual("mine", NoSuchPeer("x", advice="mine").advice)
        self.assertEqual("", str(NoSuchPeer()))
