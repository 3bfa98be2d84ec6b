"""
Foreign programs as child processes of a test.

They are found in the directory that C{TSRT_INTEROP_BIN} names, where
C{make interop-build} puts them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

NEEDED = (
    "headscale",
    "derper",
    "tailscale",
    "tailscaled",
    "tsnet-peer",
    "wireguard-peer",
)


def binaries() -> Path:
    """The directory of the foreign programs."""
    return Path(os.environ.get("TSRT_INTEROP_BIN", "interop/bin"))


def whySkip() -> str | None:
    """
    Why the interop tests cannot run here, if they cannot.

    @raise RuntimeError: they must run (C{TSRT_INTEROP_REQUIRED}) and cannot.
    """
    reason = None
    missing = [name for name in NEEDED if not (binaries() / name).exists()]
    if missing:
        reason = f"foreign programs are not built ({missing[0]}): run make interop"
    elif os.geteuid() != 0:
        reason = "network namespaces need root"
    elif subprocess.run(["ip", "netns", "list"], capture_output=True).returncode:
        reason = "the ip command cannot make network namespaces here"
    return required(reason)


def required(reason: str | None) -> str | None:
    """
    A reason to skip a test, unless it must run (C{TSRT_INTEROP_REQUIRED}).

    @raise RuntimeError: it must, and there is a reason.
    """
    if reason is not None and os.environ.get("TSRT_INTEROP_REQUIRED"):
        raise RuntimeError(reason)
    return reason


class ProgramFailed(Exception):
    """A foreign program ended, or answered with an error."""


class Program(ProcessProtocol):
    """A running child process whose output goes to a log file."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._path = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = open(log, "ab")  # noqa: SIM115  # closed with the process
        self.ended: Deferred[None] = Deferred()
        self.isRunning = True

    def output(self) -> str:
        """All that it wrote so far."""
        return self._path.read_text(errors="replace")

    def outReceived(self, data: bytes) -> None:
        """Keep its output."""
        self._log.write(data)
        self._log.flush()

    def errReceived(self, data: bytes) -> None:
        """Keep its complaints."""
        self._log.write(data)
        self._log.flush()

    def processEnded(self, reason: Failure) -> None:
        """It is gone."""
        self.isRunning = False
        self._log.close()
        if not reason.check(ProcessDone, ProcessTerminated):
            self.ended.errback(reason)
        else:
            self.ended.callback(None)

    async def stop(self, reactor: IReactorTime, patience: float = 10.0) -> None:
        """End it, by force if it must be."""
        for name in ("TERM", "KILL"):
            if not self.isRunning:
                break
            assert self.transport is not None
            self.transport.signalProcess(name)
            for _ in range(int(patience * 20)):
                if not self.isRunning:
                    break
                await deferLater(reactor, 0.05)


class JSONLines(LineReceiver):
    """Splits a child's output into lines."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 20

    def __init__(self, received: Callable[[dict[str, object]], None]) -> None:
        self._received = received

    def lineReceived(self, line: bytes) -> None:
        """Hand one object on."""
        self._received(json.loads(line))


class CommandProgram(Program):
    """A child that takes a JSON command a line and answers each with one."""

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(name, log)
        self._lines = JSONLines(self._answered)
        self._pending: dict[int, Deferred[dict[str, object]]] = {}
        self._next = 1

    def outReceived(self, data: bytes) -> None:
        """Answers come on standard output."""
        self._log.write(data)
        self._log.flush()
        self._lines.dataReceived(data)

    def call(self, cmd: str, **arguments: object) -> Deferred[dict[str, object]]:
        """Send a command; fires with its answer."""
        number, self._next = self._next, self._next + 1
        answer: Deferred[dict[str, object]] = Deferred()
        if not self.isRunning:
            answer.errback(ProgramFailed(f"{self.name} has ended"))
            return answer
        self._pending[number] = answer
        line = json.dumps({"id": number, "cmd": cmd, **arguments})
        assert self.transport is not None
        self.transport.write(line.encode() + b"\n")
        return answer

    def _answered(self, document: dict[str, object]) -> None:
        answer = self._pending.pop(int(str(document["id"])), None)
        if answer is None:
            return
        if document["ok"]:
            answer.callback(document)
        else:
            answer.errback(ProgramFailed(f"{self.name}: {document.get('error')}"))

    def processEnded(self, reason: Failure) -> None:
        """Nothing that was asked will be answered."""
        super().processEnded(reason)
        pending, self._pending = self._pending, {}
        for answer in pending.values():
            answer.errback(
                ProgramFailed(f"{self.name} ended:\n{self.output()[-2000:]}")
            )


def spawn(
    reactor: IReactorProcess,
    program: Program,
    command: Sequence[str],
    directory: Path,
    environment: dict[str, str] | None = None,
) -> None:
    """Start a program in C{directory} with an environment of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    env = {
        "HOME": str(directory),
        "PATH": os.environ.get("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
        "TS_NO_LOGS_NO_SUPPORT": "true",
        "TS_DISABLE_PORTMAPPER": "1",
        "TS_ASSUME_NETWORK_UP_FOR_TEST": "1",
        "TS_PANIC_IF_HIT_MAIN_CONTROL": "1",
        "TS_DEBUG_PERMIT_HTTP_C2N": "1",
        **(environment or {}),
    }
    reactor.spawnProcess(
        program, command[0], list(command), env=env, path=str(directory)
    )


async def eventually(
    reactor: IReactorTime,
    check: Callable[[], object] | Callable[[], Awaitable[object]],
    what: str,
    patience: float = 30.0,
    interval: float = 0.1,
) -> object:
    """Wait until C{check} returns something true; return that."""
    deadline = reactor.seconds() + patience
    last: object = None
    while reactor.seconds() < deadline:
        try:
            result = check()
            last = await result if isinstance(result, Awaitable) else result
            if last:
                return last
        except Exception as error:
            last = error
        await deferLater(reactor, interval)
    raise AssertionError(f"{what}: not within {patience:.0f} s; last was {last!r}")


def terminate(pid: int) -> None:
    """Send SIGTERM to a process that is ours."""
    os.kill(pid, signal.SIGTERM)
