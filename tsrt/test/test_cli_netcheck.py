"""Tests of L{tsrt.cli.netcheck}, L{tsrt.cli.derpmaps} and L{tsrt.cli.main}."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Site
from twisted.web.static import Data

from tsrt._version import __version__
from tsrt.cli.derpmaps import LARGEST_MAP, DERPMapUnavailable
from tsrt.cli.main import main, parse
from tsrt.cli.netcheck import NetcheckOptions
from tsrt.config import Seams
from tsrt.errors import InsecureControlURL
from tsrt.tailcfg import DERPMap, DERPNode, DERPRegion, encode
from tsrt.test.relayworld import World
from tsrt.testing.links import Link
from tsrt.testing.stun import STUNServer
from tsrt.underlay.socket import UnderlayBindError


class NetcheckTests(SynchronousTestCase):
    """A check of a simulated network, as a user sees it."""

    def setUp(self) -> None:
        self.patch(os, "environ", {"TS_DISABLE_PORTMAPPER": "1"})
        self.world = World()
        self.host = self.world.internet.host("me", ["198.51.100.1"])
        self.regions: dict[int, DERPRegion | None] = {}
        for number, delay in ((1, 0.02), (2, 0.01), (3, 0.04), (4, 0.05)):
            host, _ = self.world.relay(f"r{number}", tls=True)
            STUNServer(host).startService()
            self.world.internet.setLink(Link(delay=delay), self.host, host)
            node = DERPNode(
                name=f"{number}a",
                regionID=number,
                hostName=f"r{number}.example.com",
                ipv4=host.addresses[0],
                ipv6="none",
                insecureForTests=True,
            )
            self.regions[number] = DERPRegion(
                regionID=number,
                regionCode=f"r{number}",
                regionName=f"Region {number}",
                nodes=[node],
            )
        self.map = encode(DERPMap(regions=self.regions))
        self.out = io.StringIO()
        self.gateway: Any = None

    def start(self, *arguments: str, file: bool = True) -> Deferred[None]:
        """Run the command."""
        if file:
            path = Path(self.mktemp())
            path.write_bytes(self.map)
            arguments = ("--derp-map", str(path), *arguments)
        options = NetcheckOptions(
            Seams(
                randbytes=self.world.randbytes,
                wallclock=self.world.clock.seconds,
                gateway=lambda reactor: succeed(self.gateway),
            )
        )
        options.parseOptions(list(arguments))
        return Deferred.fromCoroutine(options.run(self.host, self.out))

    def check(self, *arguments: str, file: bool = True) -> str:
        """Run the command to its end; what it printed.  Nothing is left."""
        self.world.result(self.start(*arguments, file=file))
        self.world.elapse(0.1)
        self.assertEqual((self.host.ports, self.host.streams), ([], []))
        self.assertEqual(list(self.host.getDelayedCalls()), [])
        return self.out.getvalue()

    def test_text(self) -> None:
        """What there is to say, nearest first."""
        text = self.check()
        self.assertIn("\t* UDP: true\n\t* IPv4: yes, 198.51.100.1:", text)
        self.assertIn("\t* PortMapping: not checked\n", text)
        self.assertIn(
            "\t* Nearest DERP: Region 2\n\t* DERP latency:\n"
            "\t\t-  r2: 20ms    (Region 2)\n\t\t-  r1: 40ms    (Region 1)\n",
            text,
        )

    def test_verbose(self) -> None:
        """Every region is waited for."""
        self.patch(sys, "stderr", io.StringIO())
        text = self.check("--verbose")
        self.assertIn("\t\t-  r4: 100ms   (derp4, Region 4)\n", text)

    def test_json(self) -> None:
        """One document for each check."""
        found = json.loads(self.check("--format", "json"))
        self.assertEqual(found["PreferredDERP"], 2)
        self.assertEqual(found["RegionLatency"]["2"], 20_000_000)

    def test_every(self) -> None:
        """Again and again, until the user has enough."""
        running = self.start("--every", "10s", "--format", "json-line")
        self.world.elapse(25)
        running.addErrback(lambda _: None)
        running.cancel()
        self.world.elapse(1)
        self.assertEqual(self.host.ports, [])
        lines = self.out.getvalue().splitlines()
        self.assertEqual(len(lines), 3)
        times = [json.loads(line)["Now"] for line in lines]
        self.assertEqual(len(set(times)), 3)

    def test_noUDP(self) -> None:
        """Latencies come by HTTPS."""
        self.host.firewall = lambda kind, address, port: kind == "tcp"
        text = self.check()
        self.assertIn("* UDP: false\n\t* IPv4: (no addr found)\n", text)
        self.assertIn("* Nearest DERP: Region 2\n", text)

    def test_portMapping(self) -> None:
        """A gateway that is not there maps nothing, and none is asked for."""
        os.environ.clear()
        self.assertIn("\t* PortMapping: \n", self.check())

    def test_bind(self) -> None:
        """The port and the address that the user wants, or an error."""
        text = self.check("--bind-port", "5555", "--bind-address", "198.51.100.1")
        self.assertIn("IPv4: yes, 198.51.100.1:5555\n", text)
        self.host.listenUDP(5555, DatagramProtocol(), "", 2048)
        self.failureResultOf(self.start("--bind-port", "5555"), UnderlayBindError)
        failure = self.failureResultOf(
            self.start("--bind-address", "198.51.100.77"), UnderlayBindError
        )
        self.assertIn("at 198.51.100.77", str(failure.value))

    def refused(self, *arguments: str) -> str:
        """What the user is told of options that cannot be."""
        return str(
            self.assertRaises(UsageError, NetcheckOptions().parseOptions, arguments)
        )

    def test_options(self) -> None:
        """Options that cannot be are refused with a sentence."""
        self.assertIn("json-line, not xml", self.refused("--format", "xml"))
        self.assertIn("not a port", self.refused("--bind-port", "70000"))
        self.assertIn("is no address", self.refused("--bind-address", "home"))
        self.assertIn("not a duration", self.refused("--every", "often"))

    # -- where the map is from

    def serveMap(self, data: bytes) -> None:
        """Serve a map as Tailscale's control server does."""
        host = self.world.internet.host("web", ["10.0.0.9"])
        root, folder = Resource(), Resource()
        root.putChild(b"derpmap", folder)
        folder.putChild(b"default", Data(data, "application/json"))
        root.putChild(b"gone", NoResource())
        host.listenTCP(80, Site(root, reactor=host))

    def unavailable(self, *arguments: str, file: bool = False) -> str:
        """Why there is no map."""
        starting = self.start(*arguments, file=file)
        self.world.until(lambda: starting.called)
        return self.failureResultOf(starting, DERPMapUnavailable).value.describe()

    def test_loginServer(self) -> None:
        """Without a map of one's own the login server's is used."""
        self.serveMap(self.map)
        url = "http://10.0.0.9"
        self.assertIn("Region 2", self.check("--login-server", url, file=False))
        url = "http://10.0.0.9/derpmap/default"
        self.assertIn("Region 2", self.check("--derp-map", url, file=False))

    def test_noMap(self) -> None:
        """Whatever goes wrong is said, with what to do."""
        self.serveMap(b"{}")
        url = "http://10.0.0.9"
        why = self.unavailable("--login-server", url)
        self.assertIn("has no region", why)
        self.assertIn("--derp-map", why)
        self.assertIn("HTTP 404", self.unavailable("--derp-map", f"{url}/gone"))
        self.assertIn(
            "refuses", self.unavailable("--login-server", "http://10.0.0.9:81")
        )
        self.assertIn("cannot be read", self.unavailable("--derp-map", "/no/such/file"))
        self.map = b'{"Regions":5}'
        self.assertIn("no map of relays", self.unavailable(file=True))
        self.failureResultOf(
            self.start("--derp-map", "http://192.0.2.9/x", file=False),
            InsecureControlURL,
        )

    def test_hugeMap(self) -> None:
        """A map without end is not read to its end."""
        self.serveMap(b" " * (LARGEST_MAP + 1))
        why = self.unavailable("--login-server", "http://10.0.0.9")
        self.assertIn(f"more than {LARGEST_MAP} bytes", why)

    def test_silentServer(self) -> None:
        """A server that says nothing is not waited for for ever."""
        host = self.world.internet.host("web", ["10.0.0.9"])
        host.listenTCP(80, Factory.forProtocol(Protocol))
        why = self.unavailable("--login-server", "http://10.0.0.9")
        self.assertIn("within 20 seconds", why)


class MainTests(SynchronousTestCase):
    """The console script."""

    def setUp(self) -> None:
        self.patch(os, "environ", {})
        self.patch(sys, "stdout", io.StringIO())
        self.said = sys.stdout

    def ends(self, *arguments: str) -> object:
        """With what the script ends."""
        return self.assertRaises(SystemExit, parse, arguments).code

    def test_help(self) -> None:
        """Help names the commands; each has its own."""
        self.assertEqual(self.ends("--help"), 0)
        self.assertIn("Usage: tsrt COMMAND [options]", self.said.getvalue())
        self.assertIn("netcheck  ", self.said.getvalue())
        self.assertEqual(self.ends("netcheck", "--help"), 0)
        self.assertIn("\nUsage: tsrt netcheck [options]", "\n" + self.said.getvalue())

    def test_version(self) -> None:
        """The version, of the script and of each command."""
        self.assertEqual(self.ends("--version"), 0)
        self.assertEqual(self.ends("netcheck", "--version"), 0)
        self.assertEqual(self.said.getvalue(), f"tsrt {__version__}\n" * 2)

    def test_wrong(self) -> None:
        """What is wrong is said, and where help is."""
        self.assertEqual(
            self.ends(), "tsrt: which command? See 'tsrt --help'.\nTry 'tsrt --help'."
        )
        self.assertIn("Unknown command: dance", str(self.ends("dance")))
        self.assertIn(
            "Try 'tsrt netcheck --help'.", str(self.ends("netcheck", "--format=x"))
        )

    def test_error(self) -> None:
        """An error of ours is a sentence, with a status of one."""
        started: list[Deferred[None]] = []

        def react(run: Any) -> None:
            started.append(run(World().internet.host("me", ["198.51.100.1"])))

        main(["netcheck", "--derp-map", "/no/such/file"], react)
        failure = self.failureResultOf(started[0], SystemExit)
        self.assertIn("tsrt: /no/such/file cannot be read", str(failure.value.code))
