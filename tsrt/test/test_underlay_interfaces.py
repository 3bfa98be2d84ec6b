"""
Tests for L{tsrt.underlay.interfaces} and L{tsrt.path.local}.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace

import ifaddr
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.path.local import (
    PER_SUBNET,
    InterfaceAddress,
    isLinkLocal,
    isLoopback,
    isUnicast,
    isUniqueLocal,
    usableAddresses,
)
from tsrt.underlay.interfaces import (
    _isUp,
    addressesFromText,
    interfaceAddresses,
    readAddresses,
)


def adapter(name: str, *ips: tuple[object, int]) -> SimpleNamespace:
    """An interface as the library tells it."""
    return SimpleNamespace(
        name=name,
        nice_name=name,
        ips=[SimpleNamespace(ip=ip, network_prefix=length) for ip, length in ips],
    )


def entry(text: str, length: int = 64, isLocal: bool = False) -> InterfaceAddress:
    """An address of an interface."""
    return InterfaceAddress(parseAddress(text), length, "eth0", isLocal)


def usable(*entries: InterfaceAddress) -> tuple[list[str], list[str]]:
    """What is worth telling, as text."""
    regular, loopback = usableAddresses(entries)
    return (
        [InterfaceAddress(packed, 0).text() for packed in regular],
        [InterfaceAddress(packed, 0).text() for packed in loopback],
    )


class ReadTests(SynchronousTestCase):
    """What is made of what the system tells."""

    def read(self, *adapters: SimpleNamespace, down: str = "") -> list[tuple]:
        """The addresses of some interfaces."""
        return [
            (found.interface, found.text(), found.prefixLength, found.isLoopback)
            for found in readAddresses(lambda: adapters, lambda name: name != down)
        ]

    def test_both(self) -> None:
        """IPv4 and IPv6 addresses come with their prefixes, in order."""
        self.assertEqual(
            self.read(
                adapter("lo", ("127.0.0.1", 8), (("::1", 0, 0), 128)),
                adapter(
                    "eth0",
                    ("192.0.2.7", 24),
                    (("2001:db8::7", 0, 0), 64),
                    (("fe80::7%eth0", 0, 4), 64),
                ),
            ),
            [
                ("lo", "127.0.0.1", 8, True),
                ("lo", "::1", 128, True),
                ("eth0", "192.0.2.7", 24, False),
                ("eth0", "2001:db8::7", 64, False),
                ("eth0", "fe80::7", 64, False),
            ],
        )

    def test_tailnet(self) -> None:
        """Addresses of a tailnet are left out, whatever carries them."""
        self.assertEqual(
            self.read(
                adapter(
                    "tailscale0",
                    ("100.101.102.103", 32),
                    (("fd7a:115c:a1e0::1", 0, 0), 128),
                ),
                adapter("arc0", ("100.115.92.7", 30)),
            ),
            [("arc0", "100.115.92.7", 30, False)],
        )

    def test_everythingOnLoopback(self) -> None:
        """What the loopback interface carries leads nowhere else."""
        self.assertEqual(
            self.read(adapter("lo", ("192.0.2.1", 32), ("127.0.0.1", 8))),
            [("lo", "192.0.2.1", 32, True), ("lo", "127.0.0.1", 8, True)],
        )

    def test_down(self) -> None:
        """An interface that is switched off does not count."""
        adapters = [
            adapter("eth0", ("192.0.2.1", 24)),
            adapter("eth1", ("10.0.0.1", 8)),
        ]
        self.assertEqual(
            self.read(*adapters, down="eth1"), [("eth0", "192.0.2.1", 24, False)]
        )

    def test_zeroTier(self) -> None:
        """Another overlay network is no underlay."""
        self.assertEqual(
            self.read(
                adapter("ztabcdefgh", ("10.147.17.1", 24)),
                adapter("ZeroTier One [123]", ("10.147.17.1", 24)),
            ),
            [],
        )

    def test_nonsense(self) -> None:
        """What is no address is passed over; lengths that cannot be are cut."""
        self.assertEqual(
            self.read(adapter("eth0", ("nonsense", 24), ("192.0.2.1", 99))),
            [("eth0", "192.0.2.1", 32, False)],
        )

    def test_refused(self) -> None:
        """A system that does not tell is an error, or means no change."""

        def refuse() -> list:
            raise PermissionError("not here")

        self.assertRaises(PermissionError, readAddresses, refuse)
        before = interfaceAddresses()
        self.assertNotEqual(before, ())
        self.patch(ifaddr, "get_adapters", refuse)
        self.assertEqual(interfaceAddresses(), before)

    def test_text(self) -> None:
        """Addresses can be given as text, too."""
        found = addressesFromText(["192.0.2.1", "::1", "100.64.0.1"], "sim")
        self.assertEqual(
            [(e.text(), e.interface, e.isLoopback) for e in found],
            [("192.0.2.1", "sim", False), ("::1", "sim", True)],
        )
        self.assertRaises(WireError, addressesFromText, ["nonsense"])

    def test_real(self) -> None:
        """This machine has a loopback address, on an interface that is up."""
        found = [e for e in interfaceAddresses() if e.isLoopback]
        self.assertIn(
            True, [isLoopback(e.address) for e in found], "no loopback interface?"
        )

    def test_realFlags(self) -> None:
        """The loopback interface is up; one that is not there is not known off."""
        if not hasattr(socket, "if_nameindex"):
            raise SkipTest("interfaces have no names here")
        names = [name for _, name in socket.if_nameindex()]
        for name in {"lo", "lo0"} & set(names):
            self.assertTrue(_isUp(name))
        self.assertTrue(_isUp("nosuchinterface0"))


class UsableTests(SynchronousTestCase):
    """Which addresses are worth telling."""

    def test_regular(self) -> None:
        """Global and private IPv4 and global IPv6 addresses are."""
        addresses = ["192.0.2.1", "10.1.2.3", "192.168.1.2", "2001:db8::1"]
        self.assertEqual(usable(*map(entry, addresses)), (addresses, []))

    def test_never(self) -> None:
        """These never are."""
        for text in (
            "fe80::1",
            "febf::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "100.64.0.1",
            "fd7a:115c:a1e0::1",
        ):
            self.assertEqual(usable(entry(text)), ([], []), text)

    def test_lastResort(self) -> None:
        """Unique local and self-assigned addresses are if there are no others."""
        poor = [entry("169.254.1.2"), entry("fd00::2")]
        self.assertEqual(usable(*poor), (["169.254.1.2", "fd00::2"], []))
        for better in ("10.0.0.1", "2001:db8::1"):
            self.assertEqual(usable(*poor, entry(better)), ([better], []))

    def test_perSubnet(self) -> None:
        """Of an IPv6 subnet only so many are; IPv4 has no such addresses."""
        many = [entry(f"2001:db8::{n}") for n in range(1, 6)]
        other = entry("2001:db8:0:1::1")
        regular, _ = usable(*many, many[0], other)
        self.assertEqual(len(regular), PER_SUBNET + 1)
        self.assertEqual(regular[-1], "2001:db8:0:1::1")
        regular, _ = usable(*[entry(f"192.0.2.{n}", 24) for n in range(1, 6)])
        self.assertEqual(len(regular), 5)

    def test_loopback(self) -> None:
        """Loopback addresses are told apart, by address and by interface."""
        self.assertEqual(
            usable(entry("127.0.0.1"), entry("::1"), entry("192.0.2.1", 32, True)),
            ([], ["127.0.0.1", "::1", "192.0.2.1"]),
        )

    def test_scopes(self) -> None:
        """The ranges end where they end."""
        for check, inside, outside in (
            (
                isLinkLocal,
                ["169.254.0.0", "fe80::", "febf::"],
                ["169.255.0.0", "fec0::"],
            ),
            (isLoopback, ["127.0.0.0", "127.255.255.255", "::1"], ["128.0.0.0", "::2"]),
            (isUniqueLocal, ["fc00::", "fdff::"], ["fe00::", "fbff::", "252.0.0.1"]),
            (isUnicast, ["1.0.0.0", "223.255.255.255", "fe80::1"], ["224.0.0.0"]),
        ):
            for text in inside:
                self.assertTrue(check(parseAddress(text)), text)
            for text in outside:
                self.assertFalse(check(parseAddress(text)), text)
