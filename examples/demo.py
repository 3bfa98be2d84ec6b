"""
A tailnet on one machine, from nothing to a web page.

Starts the embedded tailnet (control server, relay, STUN) and two nodes, each
in a process of its own; one serves a page on the tailnet, the other fetches it
by its MagicDNS name.  Everything listens on loopback, needs no root, and ends
by itself; with C{--keep} it stays until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60.0

PAGE = """<!doctype html>
<title>tsrt demo</title>
<p>Hello from the tailnet!
This page came through WireGuard and a TCP stack written in Python.
"""


class DemoError(Exception):
    """Something did not come up; the message says what to look at."""


class Demo:
    """The processes of the demo and the directory they live in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start C{twistd} with a log file of its own."""
        twistd = Path(sys.executable).parent / "twistd"
        log = open(self.log(name), "wb")  # noqa: SIM115  # the process keeps it
        self.processes[name] = subprocess.Popen(
            [str(twistd), "--nodaemon", "--pidfile=", *arguments],
            cwd=self.directory,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("TS_")},
            start_new_session=True,
        )
        log.close()

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.directory / f"{name}.log"

    def document(self, name: str, ready: str) -> dict[str, object]:
        """Wait for a JSON file until C{ready} is a key with a value."""
        path = self.directory / f"{name}.json"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.processes[name].poll() is not None:
                raise DemoError(f"{name} ended:\n{self.log(name).read_text()[-2000:]}")
            try:
                document: dict[str, object] = json.loads(path.read_text())
            except (OSError, ValueError):
                document = {}
            if document.get(ready):
                return document
            time.sleep(0.05)
        raise DemoError(
            f"{name} was not ready in {PATIENCE:.0f} s:\n"
            f"{self.log(name).read_text()[-2000:]}"
        )

    def find(self, name: str, pattern: str) -> re.Match[str]:
        """Wait for a line in a process's log."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            match = re.search(pattern, self.log(name).read_text())
            if match:
                return match
            time.sleep(0.05)
        raise DemoError(f"the log of {name} never said {pattern!r}")

    def stop(self) -> None:
        """Stop everything, the nodes before their control server."""
        for name, process in reversed(self.processes.items()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    print(f"   ({name} had to be killed)")


def freePort() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetch(url: str) -> tuple[str, float]:
    """Get a page; return it and the seconds it took."""
    began = time.monotonic()
    # No proxy of the environment may stand between us and loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as response:
        page: bytes = response.read()
    return page.decode(), time.monotonic() - began


def show(demo: Demo, keep: bool) -> None:
    """Run the demo."""
    began = time.monotonic()
    print("Starting a tailnet on loopback: control server, relay and STUN ...")
    demo.start(
        "tailnet", "tsrt-devtailnet", "--port", "0", "--print-json", "tailnet.json"
    )
    tailnet = demo.document("tailnet", "url")
    url, key = str(tailnet["url"]), str(tailnet["authKey"])
    (demo.directory / "authkey").write_text(key + "\n")
    print(f"   control server at {url}")

    site = demo.directory / "site"
    site.mkdir()
    (site / "index.html").write_text(PAGE)
    port = freePort()
    common = ("--login-server", url, "--authkey-file", "authkey", "--ephemeral")
    print("Starting two nodes, each a `twistd tsrt` process ...")
    for name, arguments in (
        ("web", ("--serve-dir", "80=site")),
        (
            "laptop",
            ("--forward", f"tcp:{port}:interface=127.0.0.1=web:80", "--ping", "web"),
        ),
    ):
        demo.start(
            name,
            *("tsrt", *common, "--hostname", name, "--statedir", f"{name}-state"),
            *("--status-file", f"{name}.json", *arguments),
        )
    for name in ("web", "laptop"):
        status = demo.document(name, "addresses")
        addresses = " and ".join(map(str, status["addresses"]))  # type: ignore[call-overload]  # a list of strings
        print(f"   {status['name']} is {addresses}")

    print("Fetching http://web/ from laptop, over the tailnet ...")
    page, seconds = fetch(f"http://127.0.0.1:{port}/")
    print("\n" + "".join(f"   | {line}\n" for line in page.splitlines()))
    print(f"   fetched in {seconds * 1000:.1f} ms")
    ping = demo.find("laptop", r"ping (\S+) \((\S+)\): ([\d.]+ ms) by (.+)")
    print(f"   path to {ping[1]}: {ping[4]}; round trip {ping[3]}")
    caller = demo.find("web", r"(\S+ \(.*?\) at \S+): GET / 200")
    print(f"   the server saw its caller as {caller[1]}")
    print(f"   all of it took {time.monotonic() - began:.1f} s")
    if keep:
        _invite(demo, url, port)


def _invite(demo: Demo, url: str, port: int) -> None:
    """Leave everything running and say what can be done with it."""
    twistd = Path(sys.executable).parent / "twistd"
    print(
        f"""
It goes on running. Things to try in another terminal:

   curl http://127.0.0.1:{port}/           # the page again, through both nodes
   tail -f {demo.directory}/*.log

   # a third node, which lends your port 22 to the tailnet:
   {twistd} -n --pidfile= tsrt --login-server {url} \\
       --authkey-file {demo.directory}/authkey --hostname third \\
       --ephemeral --state mem: --listen-tcp 22=tcp:127.0.0.1:22 --ping web

   # or a real Tailscale node:
   tailscale up --login-server {url} --auth-key file:{demo.directory}/authkey

Ctrl-C ends it."""
    )
    try:
        while all(p.poll() is None for p in demo.processes.values()):
            time.sleep(0.5)
    except KeyboardInterrupt:
        print()


def main() -> int:
    """Run the demo and clean up after it, whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay until Ctrl-C")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tsrt-demo-"))
    demo = Demo(directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        show(demo, arguments.keep)
    except (DemoError, urllib.error.URLError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        demo.stop()
        shutil.rmtree(directory, ignore_errors=True)
    print("Stopped; nothing is left behind.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
