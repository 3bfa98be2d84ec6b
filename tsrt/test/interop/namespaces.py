"""
A network namespace for foreign programs, with one link to the test.

Real nodes look for port mappers, log servers and resolvers; in here there is
nothing but the test.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

_numbers = itertools.count()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """
    One namespace behind a veth pair.

    @ivar hostAddress: the test's end of the link.
    @ivar address: the programs' end.
    """

    def __init__(self) -> None:
        number = os.getpid() % 200 * 32 + next(_numbers)
        self.name = f"tsrt{number}"
        self._link = f"tsrtv{number}"
        base = f"10.{231 + number // 16384}.{number // 64 % 256}.{number % 64 * 4}"
        prefix, last = base.rsplit(".", 1)
        self.hostAddress = f"{prefix}.{int(last) + 1}"
        self.address = f"{prefix}.{int(last) + 2}"
        self._resolver = Path("/etc/netns") / self.name

    def make(self) -> None:
        """Make it; what exists after a failure is removed by L{remove}."""
        self.remove()
        self._resolver.mkdir(parents=True)
        (self._resolver / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        _ip("netns", "add", self.name)
        inner = f"{self._link}i"
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", self.name)
        _ip("addr", "add", f"{self.hostAddress}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/30", "dev", inner)
        _ip("-n", self.name, "link", "set", inner, "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def addAddress(self, prefix: str) -> None:
        """Give it an address that is nowhere else."""
        _ip("-n", self.name, "addr", "add", prefix, "dev", "lo")

    def narrow(self, mtu: int) -> None:
        """Let no packets of more than so many bytes go from the test to the programs."""
        way = ("dev", self._link, "src", self.hostAddress, "mtu", str(mtu))
        _ip("route", "add", f"{self.address}/32", *way)

    def remove(self) -> None:
        """Remove it, if it is there."""
        for command in (
            ["ip", "netns", "del", self.name],
            ["ip", "link", "del", self._link],
        ):
            subprocess.run(command, capture_output=True)
        if self._resolver.exists():
            for file in self._resolver.iterdir():
                file.unlink()
            self._resolver.rmdir()

    def cutUDP(self) -> None:
        """Let no datagrams in or out; streams pass."""
        rules = (
            "add table inet cut",
            "add chain inet cut i { type filter hook input priority 0; }",
            "add chain inet cut o { type filter hook output priority 0; }",
            "add rule inet cut i meta l4proto udp drop",
            "add rule inet cut o meta l4proto udp drop",
        )
        for rule in rules:
            self._nft(*rule.split(" "))

    def cutUDPFromTest(self) -> None:
        """Let no datagrams from or to the test; other links carry them."""
        for rule in (
            "add table inet cut",
            "add chain inet cut i { type filter hook input priority 0; }",
            "add chain inet cut o { type filter hook output priority 0; }",
            f"add rule inet cut i iifname {self._link}i meta l4proto udp drop",
            f"add rule inet cut o oifname {self._link}i meta l4proto udp drop",
        ):
            self._nft(*rule.split(" "))

    def join(self, other: Namespace) -> None:
        """Lay a link to another namespace, which leads nowhere else."""
        number = next(_numbers) % 64 * 4
        near, far = f"{self._link}a", f"{other._link}b"
        _ip(
            *("-n", self.name, "link", "add", near, "type", "veth"),
            *("peer", "name", far, "netns", other.name),
        )
        for name, link, last in (
            (self.name, near, number + 1),
            (other.name, far, number + 2),
        ):
            _ip("-n", name, "addr", "add", f"192.168.78.{last}/30", "dev", link)
            _ip("-n", name, "link", "set", link, "up")

    def leadHome(self) -> None:
        """Let all the test's own addresses be reached over the link to it."""
        _ip("-n", self.name, "route", "add", "default", "via", self.hostAddress)

    def healUDP(self) -> None:
        """Undo L{cutUDP}."""
        self._nft("delete", "table", "inet", "cut")

    def _nft(self, *arguments: str) -> None:
        _ip("netns", "exec", self.name, "nft", *arguments)

    def command(self, *arguments: str) -> list[str]:
        """The command that runs C{arguments} inside."""
        return ["/usr/bin/env", "ip", "netns", "exec", self.name, *arguments]


class RoutedNamespace(Namespace):
    """
    One namespace behind a router of its own that translates addresses.

    @ivar external: the router's address on the test's side.
    """

    def __init__(self, masquerade: str = "masquerade") -> None:
        """
        @param masquerade: the statement of nftables; C{masquerade} keeps ports
            where it can, C{masquerade random,fully-random} gives each
            destination another.
        """
        super().__init__()
        self._masquerade = masquerade
        self._router = f"{self.name}r"
        self.external = self.address
        self._inside = "192.168.77.1"
        self.address = "192.168.77.2"

    def make(self) -> None:
        """Make both; what exists after a failure is removed by L{remove}."""
        self.remove()
        self._resolver.mkdir(parents=True)
        (self._resolver / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        router, link = self._router, self._link
        for name in (router, self.name):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", link, "type", "veth", "peer", "name", "wan", "netns", router)
        _ip("addr", "add", f"{self.hostAddress}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", router, "addr", "add", f"{self.external}/30", "dev", "wan")
        _ip("-n", router, "link", "set", "wan", "up")
        _ip(
            *("-n", router, "link", "add", "lan", "type", "veth"),
            *("peer", "name", "eth0", "netns", self.name),
        )
        _ip("-n", router, "addr", "add", f"{self._inside}/24", "dev", "lan")
        _ip("-n", router, "link", "set", "lan", "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        _ip("-n", self.name, "route", "add", "default", "via", self._inside)
        run = ("netns", "exec", router)
        _ip(*run, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for rule in (
            "add table ip nat",
            "add chain ip nat post { type nat hook postrouting priority 100; }",
            f"add rule ip nat post oifname wan {self._masquerade}",
            "add table ip guard",
            "add chain ip guard through { type filter hook forward priority 0; }",
            "add rule ip guard through iifname wan ct state new drop",
        ):
            _ip(*run, "nft", *rule.split(" "))

    def remove(self) -> None:
        """Remove both, if they are there."""
        super().remove()
        subprocess.run(["ip", "netns", "del", self._router], capture_output=True)


class MappingNamespace(RoutedNamespace):
    """
    One namespace behind a router that lets in what it has led to somebody.

    The chains are those that miniupnpd writes its rules into.
    """

    def make(self) -> None:
        """Make both; what exists after a failure is removed by L{remove}."""
        super().make()
        hook = "{ type nat hook prerouting priority -100; }"
        for rule in (
            "flush chain ip guard through",
            "add rule ip guard through ct status dnat accept",
            "add rule ip guard through iifname wan ct state new drop",
            "add table inet filter",
            "add chain inet filter miniupnpd",
            "add chain inet filter prerouting_miniupnpd",
            "add chain inet filter postrouting_miniupnpd",
            f"add chain inet filter prerouting {hook}",
            "add rule inet filter prerouting jump prerouting_miniupnpd",
        ):
            _ip("netns", "exec", self._router, "nft", *rule.split(" "))

    def onRouter(self, *arguments: str) -> list[str]:
        """The command that runs C{arguments} on the router."""
        return ["/usr/bin/env", "ip", "netns", "exec", self._router, *arguments]

    def rules(self) -> str:
        """The rules of the router at present."""
        listing = subprocess.run(
            self.onRouter("nft", "list", "ruleset"),
            check=True,
            capture_output=True,
            text=True,
        )
        return listing.stdout


class IPv6Pair:
    """
    Two namespaces with a link between them, on which there is no IPv4 at all.

    @ivar addresses: theirs, in the order of L{names}.
    """

    def __init__(self) -> None:
        number = os.getpid() % 200 * 32 + next(_numbers)
        self.names = (f"tsrt{number}a", f"tsrt{number}b")
        prefix = f"2001:db8:7474:{number:x}"
        self.addresses = (f"{prefix}::1", f"{prefix}::2")

    def make(self) -> None:
        """Make both; what exists after a failure is removed by L{remove}."""
        self.remove()
        for name in self.names:
            resolver = Path("/etc/netns") / name
            resolver.mkdir(parents=True)
            (resolver / "resolv.conf").write_text("nameserver ::1\n")
            _ip("netns", "add", name)
        one, other = self.names
        _ip(
            *("-n", one, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", "eth0", "netns", other),
        )
        for name, address in zip(self.names, self.addresses, strict=True):
            _ip(
                "-n", name, "-6", "addr", "add", f"{address}/64", "dev", "eth0", "nodad"
            )
            for link in ("eth0", "lo"):
                _ip("-n", name, "link", "set", link, "up")
            # With a route to everywhere, as programs expect of a network.
            gateway = self.addresses[1 - self.names.index(name)]
            _ip("-n", name, "-6", "route", "add", "default", "via", gateway)
            # Loopback, too, has IPv6 only.
            _ip("-n", name, "addr", "del", "127.0.0.1/8", "dev", "lo")

    def remove(self) -> None:
        """Remove both, if they are there."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            resolver = Path("/etc/netns") / name
            if resolver.exists():
                (resolver / "resolv.conf").unlink(missing_ok=True)
                resolver.rmdir()

    def command(self, which: int, *arguments: str) -> list[str]:
        """The command that runs C{arguments} inside of one of them."""
        return ["/usr/bin/env", "ip", "netns", "exec", self.names[which], *arguments]
