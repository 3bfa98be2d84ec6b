"""
Tests for L{tsrt.path.endpoints}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.path.endpoints import (
    PER_ADDRESS,
    REFLEXIVE_LIMIT,
    REMEMBERED,
    ROUND,
    STATIC_LIMIT,
    Endpoint,
    EndpointBook,
    EndpointKind,
)
from tsrt.path.local import InterfaceAddress

PORT = 41641


def at(text: str) -> AddrPort:
    """An address and a port."""
    return AddrPort.parse(text)


def interface(text: str, isLocal: bool = False) -> InterfaceAddress:
    """An address of an interface."""
    return InterfaceAddress(parseAddress(text), 64, "eth0", isLocal)


class BookTestCase(SynchronousTestCase):
    """A book and what it tells."""

    def setUp(self) -> None:
        self.book = EndpointBook()
        self.now = 1000.0

    def local(self, *addresses: str, port4: int = PORT, port6: int = PORT) -> None:
        """The machine has these addresses."""
        self.book.setLocal(
            [interface(text, text in ("127.0.0.1", "::1")) for text in addresses],
            port4,
            port6,
        )

    def seen(self, *addresses: str) -> None:
        """STUN servers see us at these addresses."""
        for text in addresses:
            self.book.addReflexive(at(text), self.now)

    def told(self) -> list[tuple[str, int]]:
        """The endpoints, as text and number."""
        return [
            (endpoint.address.text(), int(endpoint.kind))
            for endpoint in self.book.endpoints(self.now)
        ]

    def addresses(self) -> list[str]:
        """The endpoints without their kinds."""
        return [text for text, _ in self.told()]


class OrderTests(BookTestCase):
    """What is told, and in which order."""

    def test_everything(self) -> None:
        """All kinds, with the numbers that control knows, the farthest first."""
        self.book = EndpointBook(fixedPort=True)
        self.local("192.168.1.2", "2001:db8::2", "127.0.0.1")
        self.book.setMapped(at("198.51.100.1:7000"))
        self.book.setStatic([at("203.0.113.9:1")])
        self.seen("[2001:db8::2]:41641", "203.0.113.1:5000", "203.0.113.1:5001")
        self.book.setMappingVaries(True)
        self.assertEqual(
            self.told(),
            [
                ("198.51.100.1:7000", 3),
                ("203.0.113.1:5000", 2),
                ("203.0.113.1:5001", 2),
                ("[2001:db8::2]:41641", 2),
                ("203.0.113.1:41641", 4),
                ("203.0.113.9:1", 5),
                ("192.168.1.2:41641", 1),
            ],
        )
        words = [endpoint.text() for endpoint in self.book.endpoints(self.now)]
        self.assertEqual(words[0], "198.51.100.1:7000 (port mapping)")
        self.assertEqual(words[-1], "192.168.1.2:41641 (local)")

    def test_nothing(self) -> None:
        """A node that knows nothing tells nothing."""
        self.assertEqual(self.told(), [])
        self.assertFalse(self.book.hasReflexive(self.now))

    def test_mostSeenFirst(self) -> None:
        """Of the addresses of one check the one seen most often comes first."""
        self.seen("203.0.113.1:1", "203.0.113.1:2", "203.0.113.1:2")
        self.assertEqual(self.addresses(), ["203.0.113.1:2", "203.0.113.1:1"])

    def test_onceOnly(self) -> None:
        """An address that is known in several ways is told once."""
        self.local("203.0.113.1")
        self.book.setStatic([at("203.0.113.1:41641"), at("203.0.113.1:41641")])
        self.seen("203.0.113.1:41641")
        self.assertEqual(self.told(), [("203.0.113.1:41641", 2)])

    def test_T_local_ep(self) -> None:
        """The unspecified address is never told: peers could not use it."""
        self.local("0.0.0.0", "::")
        self.assertEqual(self.told(), [])

    def test_portOfFamily(self) -> None:
        """Each family has the port of its socket, and none without a socket."""
        self.local("192.0.2.1", "2001:db8::1", port4=1, port6=2)
        self.assertEqual(self.addresses(), ["192.0.2.1:1", "[2001:db8::1]:2"])
        self.local("192.0.2.1", "2001:db8::1", port4=0, port6=2)
        self.assertEqual(self.addresses(), ["[2001:db8::1]:2"])
        self.local("192.0.2.1", "2001:db8::1", port4=1, port6=0)
        self.assertEqual(self.addresses(), ["192.0.2.1:1"])

    def test_loopbackLast(self) -> None:
        """Loopback is told only by a machine that has nothing else."""
        self.local("127.0.0.1", "::1")
        self.assertEqual(self.addresses(), ["127.0.0.1:41641", "[::1]:41641"])
        self.book.setStatic([at("203.0.113.1:1")])
        self.assertEqual(self.addresses(), ["203.0.113.1:1"])
        self.book.setStatic([])
        self.local("127.0.0.1", "10.0.0.1")
        self.assertEqual(self.addresses(), ["10.0.0.1:41641"])
        # An address without a socket of its family is nothing.
        self.local("127.0.0.1", "2001:db8::1", port6=0)
        self.assertEqual(self.addresses(), ["127.0.0.1:41641"])

    def test_staticIsBounded(self) -> None:
        """A long list of configured endpoints is cut."""
        self.book.setStatic([AddrPort(b"\1\2\3\4", n) for n in range(1, 200)])
        self.assertEqual(len(self.told()), STATIC_LIMIT)


class OwnPortTests(BookTestCase):
    """The guess that somebody made a hard NAT forward our port."""

    def told4(self, isFixed: bool, varies: bool | None, port4: int = PORT) -> list:
        """What is guessed."""
        self.book = EndpointBook(fixedPort=isFixed)
        self.local("10.0.0.1", port4=port4)
        self.seen("203.0.113.1:5000", "203.0.113.1:5001", "203.0.113.2:5000")
        self.book.setMappingVaries(varies)
        return [text for text, kind in self.told() if kind == 4]

    def test_hardNAT(self) -> None:
        """Each public address is tried, once, when all conditions hold."""
        self.assertEqual(
            self.told4(True, True), ["203.0.113.1:41641", "203.0.113.2:41641"]
        )

    def test_otherwise(self) -> None:
        """Not with a random port, an easy NAT, or no socket."""
        self.assertEqual(self.told4(False, True), [])
        self.assertEqual(self.told4(True, False), [])
        self.assertEqual(self.told4(True, None), [])
        self.assertEqual(self.told4(True, True, port4=0), [])

    def test_guessIsForgotten(self) -> None:
        """A guess is told no longer than the address that it was made from."""
        self.assertEqual(len(self.told4(True, True)), 2)
        self.now += REMEMBERED
        self.assertEqual([kind for _, kind in self.told()], [2, 2, 2, 4, 4, 1])
        self.now += 1
        self.assertEqual([kind for _, kind in self.told()], [1])

    def test_alreadyThere(self) -> None:
        """A NAT that kept the port leaves nothing to guess."""
        self.assertEqual(self.told4(True, True, port4=5000), [])


class MemoryTests(BookTestCase):
    """Endpoints are told for a while after they were last seen."""

    def test_remembered(self) -> None:
        """One missing answer withdraws nothing; several minutes do."""
        self.local("10.0.0.1")
        self.seen("203.0.113.1:1")
        self.told()
        self.now += 60
        self.seen("203.0.113.1:2")
        self.assertEqual(
            self.told(),
            [("203.0.113.1:2", 2), ("203.0.113.1:1", 2), ("10.0.0.1:41641", 1)],
        )
        self.now = 1000 + REMEMBERED
        self.assertIn("203.0.113.1:1", self.addresses())
        self.now += 1
        self.assertEqual(self.addresses(), ["203.0.113.1:2", "10.0.0.1:41641"])
        self.assertTrue(self.book.hasReflexive(self.now))
        self.now += 60
        self.assertEqual(self.addresses(), ["10.0.0.1:41641"])
        self.assertFalse(self.book.hasReflexive(self.now))

    def test_families(self) -> None:
        """A check of one family does not make the other look old."""
        self.seen("[2001:db8::1]:1")
        self.now += ROUND * 2
        self.seen("203.0.113.1:1")
        self.book.setStatic([at("203.0.113.9:1")])
        self.assertEqual([kind for _, kind in self.told()], [2, 2, 5])

    def test_perAddress(self) -> None:
        """Of one IP address only so many are told, the youngest."""
        for port in range(1, 11):
            self.seen(f"203.0.113.1:{port}")
            self.told()
            self.now += ROUND + 1
        self.assertEqual(
            self.addresses(), [f"203.0.113.1:{port}" for port in range(10, 4, -1)]
        )
        self.assertEqual(len(self.addresses()), PER_ADDRESS)

    def test_memoryIsBounded(self) -> None:
        """A server that sees us somewhere else each time fills nothing."""
        for n in range(1, 250):
            self.seen(f"203.0.113.{n}:1")
            self.assertLessEqual(len(self.told()), 2 * REFLEXIVE_LIMIT)
            self.now += 6
        self.assertLessEqual(len(self.book._recent), 2 * REFLEXIVE_LIMIT)

    def test_mappedGone(self) -> None:
        """A mapping that the gateway took back is remembered for a while, too."""
        self.book.setMapped(at("203.0.113.1:7"))
        self.assertEqual(self.told(), [("203.0.113.1:7", 3)])
        self.assertTrue(self.book.hasReflexive(self.now))
        self.book.setMapped(None)
        self.assertFalse(self.book.hasReflexive(self.now))
        self.assertEqual(self.told(), [("203.0.113.1:7", 3)])
        self.now += REMEMBERED + 1
        self.assertEqual(self.told(), [])

    def test_T_rebind(self) -> None:
        """In another network the old reflexive addresses mean nothing."""
        self.book = EndpointBook(fixedPort=True)
        self.local("10.0.0.1")
        self.book.setStatic([at("203.0.113.9:1")])
        self.seen("203.0.113.1:1")
        self.book.setMappingVaries(True)
        self.assertEqual(len(self.told()), 4)
        self.book.networkChanged(self.now)
        self.assertFalse(self.book.hasReflexive(self.now))
        self.assertEqual(self.addresses(), ["203.0.113.9:1", "10.0.0.1:41641"])
        self.seen("203.0.113.2:1")
        self.assertEqual([kind for _, kind in self.told()], [2, 5, 1])

    def test_sets(self) -> None:
        """The same endpoints in another order are the same set."""
        self.seen("203.0.113.1:1", "203.0.113.1:2")
        before = self.book.endpoints(self.now)
        self.seen("203.0.113.1:2")
        after = self.book.endpoints(self.now)
        self.assertNotEqual(before, after)
        self.assertEqual(frozenset(before), frozenset(after))
        self.assertIn(Endpoint(at("203.0.113.1:1"), EndpointKind.STUN), before)


class PollutionTests(BookTestCase):
    """Servers cannot make us tell just anything."""

    def test_R_MS_4_bounded(self) -> None:
        """So many reflexive addresses are known; more of one check are not."""
        for port in range(1, REFLEXIVE_LIMIT + 5):
            self.seen(f"203.0.113.{port}:1")
        self.assertEqual(
            self.addresses(),
            [f"203.0.113.{port}:1" for port in range(1, REFLEXIVE_LIMIT + 1)],
        )
        self.assertEqual(self.book.counters.droppedFull, 4)

    def test_R_MS_4_newNetworkGetsIn(self) -> None:
        """What no server has said lately makes room, the oldest first."""
        for n in range(1, REFLEXIVE_LIMIT + 1):
            self.seen(f"203.0.113.{n}:1")
            self.now += 1
        self.now += ROUND
        self.seen("198.51.100.1:1")
        self.assertEqual(self.book.counters.droppedFull, 0)
        self.assertEqual(self.addresses(), ["198.51.100.1:1"])
        self.assertNotIn(at("203.0.113.1:1"), self.book._reflexive)
        self.assertIn(at("203.0.113.2:1"), self.book._reflexive)

    def test_implausible(self) -> None:
        """Places where no peer can reach us are not believed."""
        bad = [
            "0.0.0.0:1",
            "127.0.0.1:1",
            "169.254.1.1:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "100.64.0.1:1",
            "203.0.113.1:0",
            "[::]:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[ff02::1]:1",
            "[fd7a:115c:a1e0::1]:1",
        ]
        self.seen(*bad)
        self.assertEqual(self.told(), [])
        self.assertEqual(self.book.counters.droppedImplausible, len(bad))
        self.seen("192.168.0.1:1", "[fd00::1]:1")
        self.assertEqual(len(self.told()), 2)

    @given(
        st.lists(
            st.tuples(
                st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
                st.integers(0, 65535),
                st.floats(0, 100),
            ),
            max_size=60,
        )
    )
    def test_anything(self, seen: list[tuple[bytes, int, float]]) -> None:
        """Whatever servers say, the list is short and each address is there once."""
        book = EndpointBook(fixedPort=True)
        book.setMappingVaries(True)
        book.setLocal([interface("10.0.0.1")], PORT, PORT)
        now = 0.0
        for packed, port, step in seen:
            now += step
            book.addReflexive(AddrPort(packed, port), now)
            endpoints = book.endpoints(now)
            found = [endpoint.address for endpoint in endpoints]
            self.assertEqual(len(found), len(set(found)))
            self.assertLessEqual(len(found), 3 * REFLEXIVE_LIMIT + 1)
            self.assertEqual(endpoints[-1].kind, EndpointKind.LOCAL)
            self.assertEqual(book.endpoints(now), endpoints)
