"""A capture as Wireshark shows it, by Tailscale's own dissector."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tsrt.test.interop.programs import binaries, required, whySkip
from tsrt.testing.tailnet import TestTailnet

TSHARK = shutil.which("tshark")
DISSECTOR = "ts-dissector.lua"
NOBODY = 65534


class WiresharkTests(SynchronousTestCase):
    """Two simulated nodes, and a real Wireshark."""

    def setUp(self) -> None:
        reason = whySkip()
        if reason is None and TSHARK is None:
            reason = required("tshark is not installed")
        if reason is None and not (binaries() / DISSECTOR).exists():
            reason = required("the dissector is not there: run make interop-build")
        if reason is not None:
            raise SkipTest(reason)
        # Wireshark runs no scripts for root.
        self.directory = Path(tempfile.mkdtemp(prefix="tsrt-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        shutil.copy(binaries() / DISSECTOR, self.directory)
        os.chmod(self.directory, 0o755)

    def dissect(self, capture: Path, *fields: str) -> list[list[str]]:
        """The fields of each packet."""
        os.chmod(capture, 0o644)
        assert TSHARK is not None
        done = subprocess.run(
            [
                *(TSHARK, "-r", str(capture), "-T", "fields"),
                *("-X", f"lua_script:{self.directory / DISSECTOR}"),
                *(word for field in fields for word in ("-e", field)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            user=NOBODY,
            group=NOBODY,
            env={"HOME": str(self.directory), "PATH": "/usr/bin:/bin"},
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def test_dissected(self) -> None:
        """Paths and packets inside are what they were."""
        net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(net.close)
        path = self.directory / "a.pcap"
        capture = net["a"].capturePcap(path)
        net.wait(net["a"].ping("b"))
        capture.stop()
        a = net["a"].status.addresses[0]
        b = net["b"].status.addresses[0]
        found = self.dissect(path, "tsdebug.PATH", "ip.src", "ip.dst", "icmp.type")
        self.assertEqual(found, [["FromLocal", a, b, "8"], ["FromPeer", b, a, "0"]])
        self.assertEqual(capture.counters.written, 2)
