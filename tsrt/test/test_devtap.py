"""Tests for C{twistd tsrt-devtailnet}."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.application.service import IService
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, providedBy
from zope.interface.verify import verifyObject

from tsrt._devtap import MAX_REGIONS, Options, makeService
from tsrt.errors import NotRunning, StateUnreadable
from tsrt.test.rawcontrol import RawNode
from tsrt.testing.clock import pump
from tsrt.testing.devtailnet import writePrivately
from tsrt.testing.internet import MemoryInternet


def parsed(*arguments):
    """The options of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return options


class OptionsTests(SynchronousTestCase):
    """Tests for L{Options}."""

    def test_defaults(self):
        """Without options there is one relay on loopback and one user."""
        settings = parsed().settings
        self.assertEqual(
            (0, "127.0.0.1", 1), (settings.port, settings.interface, settings.regions)
        )
        self.assertEqual(("user",), settings.users)
        self.assertFalse(settings.authKey)
        self.assertIsNone(settings.keyFile)

    def test_all(self):
        """Each option reaches the settings."""
        policy = self.mktemp()
        Path(policy).write_text('{"acls": [],}  // none')
        settings = parsed(
            "--port", "8080",
            "--interface", "::1",
            "--host", "dev.example",
            "--derp-regions", "3",
            "--authkey", "sesame",
            "--policy", policy,
            "--domain", ".corp.example.",
            "--user", "alice",
            "--user", "bob",
            "--auto-login", "bob",
            "--approval",
            "--certificates",
            "--keyfile", "k",
            "--print-json", "j",
        ).settings  # fmt: skip
        self.assertEqual(8080, settings.port)
        self.assertEqual(("::1", "dev.example"), (settings.interface, settings.address))
        self.assertEqual(3, settings.regions)
        self.assertEqual("sesame", settings.authKey.reveal())
        self.assertNotIn("sesame", repr(settings))
        self.assertIn("acls", settings.policy)
        self.assertEqual("corp.example", settings.domain)
        self.assertEqual(("alice", "bob"), settings.users)
        self.assertEqual("bob", settings.autoLogin)
        self.assertTrue(settings.approval and settings.certificates)
        self.assertEqual((Path("k"), Path("j")), (settings.keyFile, settings.jsonFile))

    def test_refused(self):
        """Impossible options are refused with a reason."""
        malformed = self.mktemp()
        Path(malformed).write_text("{")
        cases = [
            (["--port", "x"], "x"),
            (["--port", "65536"], "--port"),
            (["--derp-regions", str(MAX_REGIONS + 1)], "--derp-regions"),
            (["--derp-regions", "-1"], "--derp-regions"),
            (["--policy", "/nonexistent"], "/nonexistent"),
            (["--policy", malformed], "line 1"),
            (["--domain", "."], "--domain"),
            (["--auto-login", "eve"], "--auto-login"),
            (["surplus"], ""),
        ]
        for arguments, words in cases:
            error = self.assertRaises(UsageError, parsed, *arguments)
            self.assertIn(words, str(error))

    def test_impossibleService(self):
        """What only shows when the service is made is a usage error as well."""
        options = parsed("--user", "a", "--user", "a")
        self.assertRaises(UsageError, makeService, options, Clock())

    def test_globalReactor(self):
        """Without a reactor the service runs on the global one."""
        from twisted.internet import reactor

        service = makeService(parsed())
        verifyObject(IService, service)
        self.assertIs(reactor, service._reactor)


class ServiceTests(SynchronousTestCase):
    """Tests for the service, on a simulated host."""

    def setUp(self):
        """Make a host."""
        self.clock = Clock()
        internet = MemoryInternet(self.clock, seed=1)
        self.host = internet.host("dev", ["192.0.2.1"])

    def start(self, *arguments):
        """Start the service; it is ready."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.keyFile = self.directory / "key"
        self.jsonFile = self.directory / "json"
        service = makeService(
            parsed(
                "--interface",
                "192.0.2.1",
                "--keyfile",
                str(self.keyFile),
                "--print-json",
                str(self.jsonFile),
                *arguments,
            ),
            self.host,
        )
        ready = service.whenReady()
        self.assertNoResult(ready)
        service.startService()
        pump(self.clock, ready)
        self.url = self.successResultOf(ready)
        return service

    def stop(self, service):
        """Stop the service; nothing is left."""
        stopped = service.stopService()
        pump(self.clock, lambda: stopped.called)
        self.successResultOf(stopped)
        self.assertEqual([], self.host.ports)
        self.assertEqual([], self.host.streams)
        self.assertEqual([], [c for c in self.host.getDelayedCalls() if c.active()])
        self.assertEqual([], list(self.directory.iterdir()))

    def test_files(self):
        """The files say all that a script needs, and only to their owner."""
        service = self.start("--derp-regions", "2", "--authkey", "sesame")
        self.assertEqual("sesame\n", self.keyFile.read_text())
        told = json.loads(self.jsonFile.read_text())
        for file in (self.keyFile, self.jsonFile):
            self.assertEqual(0o600, file.stat().st_mode & 0o777)
        self.assertEqual(self.url, told["url"])
        self.assertEqual("sesame", told["authKey"])
        self.assertEqual("tailnet.test", told["domain"])
        self.assertEqual(["user@tailnet.test"], told["users"])
        self.assertEqual([900, 901], [relay["regionID"] for relay in told["derp"]])
        ports = {
            relay[kind] for relay in told["derp"] for kind in ("derpPort", "stunPort")
        }
        self.assertEqual(4, len(ports))
        self.stop(service)

    def test_derpMap(self):
        """Clients are told of the relays from their first map on."""
        service = self.start()

        class Rig:
            """What a L{RawNode} wants of its harness."""

            server = service.control
            key = service.control.publicKey

            def client(rig):
                from tsrt.test.rawcontrol import RawClient

                return RawClient(service.control, self.clock)

        node = RawNode(Rig(), "n")
        node.register(service.authKey)
        first = node.listen()
        [told] = service.describe()["derp"]
        self.assertTrue(first["DERPMap"]["omitDefaultRegions"])
        self.assertEqual(
            {
                "Name": "900a",
                "RegionID": 900,
                "HostName": "192.0.2.1",
                "IPv4": "192.0.2.1",
                "IPv6": "none",
                "STUNPort": told["stunPort"],
                "DERPPort": told["derpPort"],
                "InsecureForTests": True,
            },
            first["DERPMap"]["Regions"]["900"]["Nodes"][0],
        )
        node.client.close()
        self.stop(service)

    def test_adminToken(self):
        """The administration interface is open to whoever reads the file."""
        service = self.start()
        token = json.loads(self.jsonFile.read_text())["adminToken"]
        from tsrt.test.rawcontrol import RawClient

        client = RawClient(service.control, self.clock)
        status, _ = client.get(
            "/admin/nodes", headers=f"Authorization: Bearer {token}\r\n"
        )
        self.assertEqual(200, status)
        client.close()
        self.stop(service)

    def test_noRelays(self):
        """There may be no relay at all."""
        service = self.start("--derp-regions", "0")
        self.assertEqual([], service.describe()["derp"])
        self.stop(service)

    def test_again(self):
        """The service may be started again; the auth key stays good."""
        service = self.start()
        self.stop(service)
        self.assertRaises(NotRunning, service.describe)
        service.startService()
        ready = service.whenReady()
        pump(self.clock, ready)
        self.successResultOf(ready)
        self.assertEqual(service.authKey + "\n", self.keyFile.read_text())
        self.stop(service)

    def test_readyLater(self):
        """Asking once it is ready is answered at once."""
        service = self.start()
        self.assertEqual(self.url, self.successResultOf(service.whenReady()))
        self.stop(service)

    def test_howToJoin(self):
        """The log says how to join."""
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        service = self.start("--authkey", "sesame")
        lines = "\n".join(event["line"] for event in observer if "line" in event)
        self.assertIn(
            f"tailscale up --login-server={self.url} --auth-key=sesame", lines
        )
        self.assertIn(f"twistd -n tsrt --login-server {self.url}", lines)
        self.stop(service)

    def test_portTaken(self):
        """When a port is taken, everything is given up."""
        stopped = []
        directlyProvides(self.host, providedBy(self.host), IReactorCore)
        self.host.stop = lambda: stopped.append(True)
        taken = self.start("--port", "8080")
        service = makeService(
            parsed("--interface", "192.0.2.1", "--port", "8080"), self.host
        )
        ready = service.whenReady()
        service.startService()
        pump(self.clock, lambda: bool(stopped))
        self.failureResultOf(ready, CannotListenError)
        leaving = service.stopService()
        pump(self.clock, lambda: leaving.called)
        self.stop(taken)
        self.assertEqual([True], stopped)

    def test_stoppedWhileStarting(self):
        """Stopping at once leaves nothing and tells who waits."""
        service = makeService(parsed("--interface", "192.0.2.1"), self.host)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        ready = service.whenReady()
        service.startService()
        self.stop(service)
        if ready.called:
            ready.addErrback(lambda reason: reason.trap(NotRunning))

    def test_unwritable(self):
        """A file that cannot be written is an error that names it."""
        path = Path(self.mktemp()) / "missing" / "file"
        error = self.assertRaises(StateUnreadable, writePrivately, path, "x")
        self.assertIn(str(path), str(error))
