"""A real program, curl, reaches the tailnet by our proxies."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest
from twisted.web.resource import Resource
from twisted.web.server import Site

from tsrt.test.interop.programs import required
from tsrt.test.interop.test_devtailnet import DevServersTestCase

CURL = shutil.which("curl")


class Page(Resource):
    """Tells what was asked and said."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        """See L{Resource}."""
        return b"asked " + request.uri

    def render_POST(self, request: Any) -> bytes:
        """See L{Resource}."""
        return b"said %d bytes" % len(request.content.read())


class CurlTests(DevServersTestCase):
    """Two of our nodes; curl is told the proxy of one, and asks for the other."""

    async def prepare(self) -> None:
        """Start both, and serve pages."""
        if CURL is None:
            reason = required("curl is not installed")
            raise SkipTest(reason)
        await super().prepare()
        web = await self.startNode("web")
        self.addresses = web.status.addresses
        listening = await web.serverEndpoint(80).listen(Site(Page()))
        self.addCleanup(listening.stopListening)
        node = await self.startNode("ours")
        self.proxy = await node.loopback()

    async def curl(self, *arguments: str, fails: bool = False) -> str:
        """Run curl; what it prints."""

        def run() -> str:
            assert CURL is not None
            done = subprocess.run(
                [CURL, "-sS", "--noproxy", "", "--max-time", "20", *arguments],
                capture_output=True,
                text=True,
                timeout=30,
                env={"PATH": "/usr/bin:/bin"},
            )
            self.assertEqual(bool(done.returncode), fails, done.stderr)
            return done.stderr if fails else done.stdout

        return await deferToThread(run)

    async def test_curl(self) -> None:
        """Pages by each protocol, by name and address, whole bodies too."""
        four, six = self.addresses
        big = self.directory / "big"
        big.write_bytes(bytes(3_000_000))
        for scheme in ("socks5h", "http"):
            url = self.proxy.url(scheme)
            for host in ("web", "web.tailnet.test", four, f"[{six}]"):
                answer = await self.curl("-x", url, f"http://{host}/x?y")
                self.assertEqual(answer, "asked /x?y")
            answer = await self.curl(
                "-x", url, "--data-binary", f"@{big}", "http://web/"
            )
            self.assertEqual(answer, "said 3000000 bytes")
        tunnel = await self.curl("-p", "-x", self.proxy.url("http"), "http://web/t")
        self.assertEqual(tunnel, "asked /t")

    async def test_refused(self) -> None:
        """Without the password, and for names that are not the tailnet's."""
        for scheme in ("socks5h", "http"):
            bare = f"{scheme}://{self.proxy.address}"
            said = await self.curl("-x", bare, "-f", "http://web/", fails=True)
            self.assertTrue(said)
            url = self.proxy.url(scheme)
            said = await self.curl("-x", url, "-f", "http://nobody/", fails=True)
            self.assertTrue(said)
