"""
A program that uses the network of its namespace as any program would, and tells
what it saw as one line of JSON.  Run by L{tsrt.test.interop.test_forwarding} with
what to do, an address, a port and a number.
"""

from __future__ import annotations

import hashlib
import json
import selectors
import socket
import sys
import time

from tsrt.cli.filelimit import raiseFileLimit
from tsrt.test.interop.scenario import pattern

PATIENCE = 30.0


def _open(kind: socket.SocketKind, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, kind)
    opened.settimeout(PATIENCE)
    return opened


def tcp(address: str, port: int, size: int) -> dict[str, object]:
    """Send some bytes, end this side, and read to the end."""
    started = time.monotonic()
    data = pattern(5, size)
    received = bytearray()
    try:
        with _open(socket.SOCK_STREAM, address) as opened:
            opened.connect((address, port))
            sent = 0
            opened.setblocking(False)
            selector = selectors.DefaultSelector()
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(opened, both)
            while time.monotonic() - started < 2 * PATIENCE:
                for _, events in selector.select(1.0):
                    if events & selectors.EVENT_WRITE and sent <= size:
                        if sent < size:
                            sent += opened.send(data[sent : sent + 65536])
                        if sent == size:
                            opened.shutdown(socket.SHUT_WR)
                            selector.modify(opened, selectors.EVENT_READ)
                            sent += 1
                    if events & selectors.EVENT_READ:
                        got = opened.recv(1 << 20)
                        if not got:
                            return {
                                "isEqual": bytes(received) == data,
                                "digest": hashlib.sha256(received).hexdigest(),
                            }
                        received += got
            return {"error": "TimeoutError", "received": len(received)}
    except OSError as error:
        return {
            "error": type(error).__name__,
            "seconds": time.monotonic() - started,
        }


def udp(address: str, port: int, size: int) -> dict[str, object]:
    """Send a datagram until it comes back."""
    data = pattern(6, size)
    with _open(socket.SOCK_DGRAM, address) as opened:
        opened.settimeout(1.0)
        opened.connect((address, port))
        for _ in range(10):
            try:
                opened.send(data)
                return {"isEqual": opened.recv(65536) == data}
            except TimeoutError:
                continue
            except OSError as error:
                return {"error": type(error).__name__}
    return {"error": "TimeoutError"}


def many(address: str, port: int, count: int) -> dict[str, object]:
    """
    Open many connections at once, and have something of its own come back on
    each while all of them are open.
    """
    raiseFileLimit()
    selector = selectors.DefaultSelector()
    waiting: dict[socket.socket, int] = {}
    opened: dict[socket.socket, int] = {}
    errors: dict[str, int] = {}
    deadline = time.monotonic() + 2 * PATIENCE
    for number in range(count):
        one = _open(socket.SOCK_STREAM, address)
        one.setblocking(False)
        one.connect_ex((address, port))
        selector.register(one, selectors.EVENT_WRITE, number)
        waiting[one] = number
        # Not more at once than the queue of a device holds.
        while len(waiting) > 100 and time.monotonic() < deadline:
            _settle(selector, waiting, opened, errors)
    while waiting and time.monotonic() < deadline:
        _settle(selector, waiting, opened, errors)
    for one, number in opened.items():
        one.setblocking(True)
        one.settimeout(PATIENCE)
        one.sendall(b"flow %d" % number)
    good = 0
    for one, number in opened.items():
        expected = b"flow %d" % number
        try:
            good += one.recv(100) == expected
        except OSError as error:
            name = type(error).__name__
            errors[name] = errors.get(name, 0) + 1
    for one in (*opened, *waiting):
        one.close()
    return {
        "open": len(opened),
        "good": good,
        "errors": errors,
        "undecided": len(waiting),
    }


def _settle(
    selector: selectors.BaseSelector,
    waiting: dict[socket.socket, int],
    opened: dict[socket.socket, int],
    errors: dict[str, int],
) -> None:
    """See what has become of attempts."""
    for key, _ in selector.select(0.5):
        one = key.fileobj
        assert isinstance(one, socket.socket)
        selector.unregister(one)
        number = waiting.pop(one)
        code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            name = type(OSError(code, "")).__name__
            errors[name] = errors.get(name, 0) + 1
            one.close()
        else:
            opened[one] = number


def main() -> None:
    """Do what was asked, and say what happened."""
    what, address, port, number = sys.argv[1:]
    call = {"tcp": tcp, "udp": udp, "many": many}[what]
    print(json.dumps(call(address, int(port), int(number))), flush=True)


if __name__ == "__main__":
    main()
