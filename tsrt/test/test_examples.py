"""The examples do what they say, on a simulated tailnet."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.web.client import readBody

import tsrt
from tsrt.test.test_node import NodeTestCase

EXAMPLES = Path(tsrt.__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    """Import an example by its file's name."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Question(DatagramProtocol):
    """Asks once and keeps the answer."""

    answer = None

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        self.answer = datagram


class ExampleTests(NodeTestCase):
    """Each example is run."""

    skip = None if EXAMPLES.exists() else "the examples are not part of an installation"

    def setUp(self) -> None:
        """Leave nothing on the global reactor."""
        super().setUp()
        # A Site keeps its log's date with calls of the global reactor, which
        # would soil whichever test comes next.
        from twisted.internet import reactor

        before = set(reactor.getDelayedCalls())

        def tidy() -> None:
            for call in reactor.getDelayedCalls():
                if call not in before:
                    call.cancel()

        self.addCleanup(tidy)

    def test_whoisPage(self) -> None:
        """The page greets the user and the node that ask for it."""
        example = load("whois_page")
        tailnet = self.tailnet("greeter", "laptop")
        tailnet.wait(Deferred.fromCoroutine(example.serve(tailnet["greeter"])))
        response = tailnet.wait(
            tailnet["laptop"].agent().request(b"GET", b"http://greeter/")
        )
        body = tailnet.wait(readBody(response))
        self.assertEqual(body, b"Hello user@tailnet.test on laptop!\n")

    def test_udpReverse(self) -> None:
        """Datagrams come back turned round."""
        example = load("udp_reverse")
        tailnet = self.tailnet("reverse", "laptop")
        example.serve(tailnet["reverse"])
        question = Question()
        tailnet["laptop"].reactor.listenUDP(0, question)
        question.transport.write(b"abc", (tailnet["reverse"].status.addresses[1], 4000))
        tailnet.settle()
        self.assertEqual(question.answer, b"cba")

    def test_fallback(self) -> None:
        """High ports echo, low ones are refused."""
        example = load("fallback")
        tailnet = self.tailnet("echo", "laptop")
        tailnet["echo"].registerFallbackTCPHandler(example.whose)
        client = Protocol()
        factory = Factory()
        factory.protocol = lambda: client
        received: list[bytes] = []
        client.dataReceived = received.append
        laptop = tailnet["laptop"]
        tailnet.wait(laptop.clientEndpoint("echo", 4321).connect(factory))
        client.transport.write(b"hello")
        tailnet.settle(2)
        self.assertEqual(b"".join(received), b"hello")
        refused = laptop.clientEndpoint("echo", 80).connect(factory)
        with self.assertRaises(ConnectionRefusedError):
            tailnet.wait(refused)

    def test_twoTailnets(self) -> None:
        """A page of one tailnet is served on another."""
        example = load("two_tailnets")
        greet = load("whois_page")
        tailnet = self.tailnet("web", "one", "two", "reader")
        tailnet.wait(Deferred.fromCoroutine(greet.serve(tailnet["web"])))
        page = tailnet.wait(
            Deferred.fromCoroutine(
                example.carry(tailnet["one"], b"http://web/", tailnet["two"], 8080)
            )
        )
        response = tailnet.wait(
            tailnet["reader"].agent().request(b"GET", b"http://two:8080/")
        )
        self.assertEqual(tailnet.wait(readBody(response)), page)

    def test_tests(self) -> None:
        """The tests in the documentation pass."""
        tests = [str(EXAMPLES / f"test_{name}.py") for name in ("greeting", "nats")]
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", *tests],
            cwd=self.makeDirectory(),
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_application(self) -> None:
        """The application file makes an application with a node in it."""
        code = (
            "from twisted.application.service import loadApplication\n"
            "from twisted.application.service import IServiceCollection\n"
            "import sys\n"
            "application = loadApplication(sys.argv[1], 'python')\n"
            "[node] = IServiceCollection(application).services\n"
            "assert type(node).__name__ == 'Node', node\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(EXAMPLES / "shop.tac")],
            cwd=self.makeDirectory(),
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def makeDirectory(self) -> str:
        """An empty directory."""
        directory = Path(self.mktemp())
        directory.mkdir()
        return str(directory)
