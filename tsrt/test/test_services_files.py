"""Tests for serving a directory to the tailnet."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tsrt.endpoints import TailnetClientEndpoint, TailnetServerEndpoint
from tsrt.errors import ConfigError, UnknownPeer
from tsrt.services.files import FilesService, IdentifyingSite
from tsrt.test.overlaynet import (
    A4,
    OverlayNet,
    Recorder,
    factoryFor,
    recordLog,
)
from tsrt.testing.clock import cooperateOn
from tsrt.testing.tailnet import TestTailnet


class FilesTests(SynchronousTestCase):
    """A directory on one node, read from another."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        (self.directory / "sub").mkdir(parents=True)
        (self.directory / "a.txt").write_text("content of a")
        (self.directory / "sub" / "b.bin").write_bytes(bytes(300_000))
        (self.directory.parent / "outside.txt").write_text("not yours")
        self.tailnet = TestTailnet(nodes=["files", "reader"])
        self.addCleanup(self.tailnet.close)
        cooperateOn(self, self.tailnet.clock)
        node = self.tailnet["files"]
        self.service = FilesService(
            self.tailnet.clock, node.serverEndpoint(80), self.directory, node.whois
        )
        self.service.setServiceParent(node.apps)

    def get(self, path: bytes, method: bytes = b"GET", headers=None):
        agent = self.tailnet["reader"].agent()
        response = self.tailnet.wait(
            agent.request(method, b"http://files" + path, headers)
        )
        return response, self.tailnet.wait(readBody(response))

    def test_served(self) -> None:
        """Files are served, also below, and parts of them; directories listed."""
        response, body = self.get(b"/a.txt")
        self.assertEqual((200, b"content of a"), (response.code, body))
        self.assertEqual(bytes(300_000), self.get(b"/sub/b.bin")[1])
        part = Headers({b"Range": [b"bytes=8-10"]})
        response, body = self.get(b"/a.txt", headers=part)
        self.assertEqual((206, b"of "), (response.code, body))
        _, listing = self.get(b"/")
        self.assertIn(b"a.txt", listing)
        self.assertIn(b"sub", listing)

    def test_nothingElse(self) -> None:
        """What is not below the directory is not served, whatever is asked."""
        for path in (
            b"/nothing",
            b"/../outside.txt",
            b"/%2e%2e/outside.txt",
            b"/sub/..%2f..%2foutside.txt",
            b"//etc/passwd",
            b"/%ff%fe",
            b"/a.txt%00",
            b"/" + b"a" * 5000,
        ):
            response, body = self.get(path)
            self.assertEqual(404, response.code, path)
            self.assertNotIn(b"not yours", body)
        response, _ = self.get(b"/a.txt", b"DELETE")
        self.assertIn(response.code, (405, 501))
        self.assertTrue((self.directory / "a.txt").exists())

    def test_log(self) -> None:
        """The log tells who asked for what, and with what result."""
        lines = recordLog(self)
        self.get(b"/a.txt")
        self.get(b"/none")
        asked = [line for line in lines() if "GET" in line]
        address = self.tailnet["reader"].status.addresses[0]
        self.assertEqual(2, len(asked))
        self.assertIn(f"at {address}: GET /a.txt 200", asked[0])
        self.assertTrue(asked[0].startswith("reader."), asked[0])
        self.assertIn("GET /none 404", asked[1])

    def test_stopsWithTheNode(self) -> None:
        """The service ends with its node and starts with it again."""
        node = self.tailnet["files"]
        self.get(b"/a.txt")
        self.tailnet.wait(node.stopService())
        self.tailnet.wait(self.tailnet["reader"].stopService())
        for name in ("files", "reader"):
            self.tailnet[name].startService()
        self.tailnet.waitUp()
        self.tailnet.settle()
        self.assertEqual(200, self.get(b"/a.txt")[0].code)


class FilesAloneTests(SynchronousTestCase):
    """What needs no tailnet."""

    def test_noDirectory(self) -> None:
        """Something that is no directory is refused before anything starts."""
        with self.assertRaises(ConfigError):
            FilesService(None, None, Path(self.mktemp()), None)

    def test_escapes(self) -> None:
        """What a server lets through cannot steer the reader's terminal."""
        lines = recordLog(self)

        class Request:
            method, path, code = b"GET", b"/\x1b[31m\xff", 404

            def getClientAddress(self) -> object:
                return None

        def whois(address: str) -> object:
            raise UnknownPeer(address)

        IdentifyingSite(Resource(), Clock(), whois).log(Request())
        self.assertEqual(["unknown node at : GET /\\x1b[31m\\xff 404"], lines())

    def test_unknownCaller(self) -> None:
        """Callers that whois does not know are named so; nothing is left."""
        net = OverlayNet()
        directory = Path(self.mktemp())
        directory.mkdir()
        lines = recordLog(self)

        def whois(address: str) -> object:
            raise UnknownPeer(address)

        service = FilesService(
            net.clock,
            TailnetServerEndpoint(lambda: net.b.tailnet, 80),
            directory,
            whois,
        )
        service.startService()
        client = Recorder()
        connecting = TailnetClientEndpoint(lambda: net.a.tailnet, "b", 80).connect(
            factoryFor(client)
        )
        net.wait(connecting)
        client.transport.write(b"GET /a%20b HTTP/1.0\r\n\r\n")
        net.elapse(1)
        [line] = [line for line in lines() if "GET" in line]
        self.assertEqual(f"unknown node at {A4}: GET /a%20b 404", line)
        net.wait(service.stopService())
        net.elapse(300)
        self.assertEqual([], net.clock.getDelayedCalls())
