"""Tests for HTTP over the tailnet: agents, sites, and who is asking."""

from __future__ import annotations

import json
from io import BytesIO

from twisted.internet import task
from twisted.internet.endpoints import wrapServerTLS
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    URI,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    HTTPConnectionPool,
    RedirectAgent,
    ResponseFailed,
    readBody,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data
from twisted.web.util import Redirect
from zope.interface.verify import verifyObject

from tsrt.endpoints import TailnetServerEndpoint
from tsrt.errors import UnknownPeer
from tsrt.test.overlaynet import B4, B6, OverlayNet, Recorder
from tsrt.testing.certificates import selfSigned
from tsrt.testing.clock import cooperateOn
from tsrt.testing.tailnet import TestTailnet
from tsrt.web import (
    Forbidden,
    TailnetEndpointFactory,
    WhoIsResource,
    makeAgent,
    requireCapability,
)

MEGABYTE = bytes(range(256)) * 4096

POLICY = {
    "grants": [
        {"src": ["*"], "dst": ["*"], "ip": ["*"]},
        {
            "src": ["admin@"],
            "dst": ["*"],
            "app": {"example.com/cap/secrets": [{"level": 3}]},
        },
    ]
}


class Echo(Resource):
    """Answers with what was posted, and counts connections."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.channels: set[object] = set()

    def render_POST(self, request) -> bytes:
        self.channels.add(request.channel)
        return request.content.read()

    def render_GET(self, request) -> bytes:
        self.channels.add(request.channel)
        return b"path " + b"/".join(request.postpath)


class WebCase(SynchronousTestCase):
    """A site on node C{b}, and an agent on node C{a}."""

    def setUp(self) -> None:
        self.net = OverlayNet()
        self.root = Resource()
        self.echo = Echo()
        self.root.putChild(b"echo", self.echo)
        self.root.putChild(b"big", Data(MEGABYTE, "application/octet-stream"))
        self.root.putChild(b"old", Redirect(b"http://b/echo"))
        self.site = Site(self.root, reactor=self.net.clock)
        self.site.noisy = False
        self.port = self.net.b.tailnet.listenTCP(80, self.site)

    def agent(self, **more) -> IAgent:
        return makeAgent(self.net.a.tailnet, **more)

    def get(self, agent: IAgent, uri: bytes, method: bytes = b"GET", body=None):
        """Make a request; its response and body."""
        response = self.net.wait(agent.request(method, uri, Headers(), body))
        return response, self.net.wait(readBody(response))


class AgentTests(WebCase):
    """Twisted's Agent and Site over the overlay."""

    def test_interfaces(self) -> None:
        """What is made is what it should be."""
        self.assertTrue(verifyObject(IAgent, self.agent()))
        factory = TailnetEndpointFactory(
            self.net.a.tailnet, BrowserLikePolicyForHTTPS(), 5
        )
        self.assertTrue(verifyObject(IAgentEndpointFactory, factory))

    def test_get(self) -> None:
        """A name, an IPv4 and an IPv6 literal work as hosts."""
        for host in ("b", B4, f"[{B6}]"):
            response, body = self.get(self.agent(), f"http://{host}/echo/x/y".encode())
            self.assertEqual(200, response.code)
            self.assertEqual(b"path x/y", body)

    def test_megabyte(self) -> None:
        """A megabyte comes down, and another goes up and comes back."""
        self.assertEqual(MEGABYTE, self.get(self.agent(), b"http://b/big")[1])
        cooperator = task.Cooperator(
            scheduler=lambda call: self.net.clock.callLater(0.0001, call)
        )
        body = FileBodyProducer(BytesIO(MEGABYTE), cooperator)
        self.assertEqual(
            MEGABYTE, self.get(self.agent(), b"http://b/echo", b"POST", body)[1]
        )

    def test_keepAlive(self) -> None:
        """A pool makes one connection serve many requests."""
        pool = HTTPConnectionPool(self.net.clock)
        agent = self.agent(pool=pool)
        for _ in range(20):
            self.get(agent, b"http://b/echo")
        self.assertEqual(1, len(self.echo.channels))
        self.net.wait(pool.closeCachedConnections())

    def test_parallel(self) -> None:
        """Many requests at once are all answered."""
        agent = self.agent()
        waiting = [
            agent.request(b"GET", b"http://b/echo/%d" % number).addCallback(readBody)
            for number in range(50)
        ]
        self.net.elapse(10)
        self.assertEqual(
            [b"path %d" % number for number in range(50)],
            [self.successResultOf(deferred) for deferred in waiting],
        )

    def test_redirect(self) -> None:
        """A redirect is followed through the tailnet."""
        _, body = self.get(RedirectAgent(self.agent()), b"http://b/old")
        self.assertEqual(b"path ", body)

    def test_slowReaderOfBody(self) -> None:
        """A client that pauses a response keeps the server waiting."""
        response = self.net.wait(self.agent().request(b"GET", b"http://b/big"))
        reader = Recorder()
        response.deliverBody(reader)
        reader.transport.pauseProducing()
        got = len(reader.data)
        self.net.elapse(30)
        self.assertLessEqual(len(reader.data) - got, 200_000)
        reader.transport.resumeProducing()
        self.net.elapse(30)
        self.assertEqual(len(MEGABYTE), len(reader.data))

    def test_errors(self) -> None:
        """Failures are those of Twisted."""
        for uri, kind in (
            (b"http://nobody/", DNSLookupError),
            (b"http://b:81/", ConnectionRefusedError),
            (b"ftp://b/", SchemeNotSupported),
        ):
            with self.assertRaises(kind):
                self.get(self.agent(), uri)

    def test_timeout(self) -> None:
        """connectTimeout counts, also while the node is not up."""
        net = OverlayNet(up=False)
        agent = makeAgent(net.a.tailnet, connectTimeout=5)
        asking = agent.request(b"GET", b"http://b/")
        net.elapse(5.1)
        self.failureResultOf(asking, TimeoutError)
        self.assertEqual([], net.clock.getDelayedCalls())

    def test_cancel(self) -> None:
        """A request that waits for the node can be cancelled."""
        net = OverlayNet(up=False)
        asking = makeAgent(net.a.tailnet).request(b"GET", b"http://b/")
        net.elapse(1)
        asking.cancel()
        self.failureResultOf(asking)
        self.assertEqual([], net.clock.getDelayedCalls())

    def test_serverGoesAway(self) -> None:
        """A server that is aborted in an answer fails the request."""

        class Hang(Resource):
            isLeaf = True

            def render(self, request):
                request.write(b"begin")
                self.transport = request.channel.transport
                return NOT_DONE_YET

        hang = Hang()
        self.root.putChild(b"hang", hang)
        response = self.net.wait(self.agent().request(b"GET", b"http://b/hang"))
        reading = readBody(response)
        hang.transport.abortConnection()
        self.net.elapse(1)
        self.failureResultOf(reading)

    def test_https(self) -> None:
        """https: URLs are verified by the policy that is given."""
        made = selfSigned(["b"])
        options = PrivateCertificate.loadPEM(made.keyPEM + made.pem).options()
        server = wrapServerTLS(
            options,
            TailnetServerEndpoint(lambda: self.net.b.tailnet, 443),
            self.net.clock,
        )
        self.net.wait(server.listen(self.site))
        policy = BrowserLikePolicyForHTTPS(Certificate.loadPEM(made.pem))
        _, body = self.get(self.agent(contextFactory=policy), b"https://b/big")
        self.assertEqual(MEGABYTE, body)
        with self.assertRaises(ResponseFailed):
            self.get(self.agent(), b"https://b/big")

    def test_endpoints(self) -> None:
        """Brackets of IPv6 literals and ports of URLs are understood."""
        factory = TailnetEndpointFactory(
            self.net.a.tailnet, BrowserLikePolicyForHTTPS(), 5
        )
        uri = URI.fromBytes(f"http://[{B6}]:8080/x".encode())
        self.assertIn(f"{B6}:8080", repr(factory.endpointForURI(uri)))


class TreqTests(WebCase):
    """treq, where it is installed."""

    def test_treq(self) -> None:
        """treq's client works with our agent."""
        try:
            from treq.client import HTTPClient
        except ImportError:
            self.skipTest("treq is not installed")
        cooperateOn(self, self.net.clock)
        client = HTTPClient(self.agent())
        response = self.net.wait(client.post("http://b/echo", data=b"posted"))
        self.assertEqual(b"posted", self.net.wait(response.content()))
        response = self.net.wait(
            client.post("http://b/echo", json={"a": 1}, timeout=None)
        )
        self.assertEqual({"a": 1}, self.net.wait(response.json()))


class WhoIsTests(SynchronousTestCase):
    """Resources that depend on who is asking, on a whole tailnet."""

    def setUp(self) -> None:
        self.tailnet = TestTailnet()
        self.addCleanup(self.tailnet.close)
        control = self.tailnet.control
        control.addUser("admin@")
        control.addUser("guest@")
        control.setPolicy(json.dumps(POLICY))
        for name, user in (
            ("server", "admin@"),
            ("boss", "admin@"),
            ("visitor", "guest@"),
        ):
            key = control.createAuthKey(user=user)
            self.tailnet.addNode(name, authKey=key.secret)
        self.tailnet.waitUp("server", "boss", "visitor")
        self.server = self.tailnet["server"]

    def serve(self, resource: Resource) -> None:
        site = Site(resource, reactor=self.tailnet.clock)
        site.noisy = False
        listening = self.server.serverEndpoint(80).listen(site)
        port = self.tailnet.wait(listening)
        self.addCleanup(lambda: self.tailnet.wait(port.stopListening()))

    def get(self, name: str, path: bytes = b"/") -> tuple[int, bytes]:
        agent = self.tailnet[name].agent()
        response = self.tailnet.wait(agent.request(b"GET", b"http://server" + path))
        return response.code, self.tailnet.wait(readBody(response))

    def test_requireCapability(self) -> None:
        """Only who has the capability gets to the resource, leaf or not."""
        tree = Resource()
        tree.putChild(b"", Data(b"top", "text/plain"))
        tree.putChild(b"deep", inner := Resource())
        inner.putChild(b"leaf", Data(b"found", "text/plain"))
        root = Resource()
        for name, resource in ((b"tree", tree), (b"echo", Echo())):
            root.putChild(
                name,
                requireCapability(
                    self.server.whois, "example.com/cap/secrets", resource
                ),
            )
        self.serve(root)
        for path, expected in (
            (b"/tree/", b"top"),
            (b"/tree/deep/leaf", b"found"),
            (b"/echo/a/b", b"path a/b"),
            (b"/echo", b"path "),
        ):
            self.assertEqual((200, expected), self.get("boss", path), path)
            code, body = self.get("visitor", path)
            self.assertEqual(403, code, path)
            self.assertIn(b"example.com/cap/secrets", body)

    def test_wholeSite(self) -> None:
        """It may guard the root of a site."""
        self.serve(
            requireCapability(self.server.whois, "example.com/cap/secrets", Echo())
        )
        self.assertEqual((200, b"path a/b"), self.get("boss", b"/a/b"))
        self.assertEqual(403, self.get("visitor", b"/a/b")[0])

    def test_callersResource(self) -> None:
        """Each caller can get a resource of their own."""

        def greet(caller) -> Resource:
            text = f"{caller.node.name.split('.')[0]} of {caller.user}"
            values = caller.values("example.com/cap/secrets")
            made = Data(f"{text} {values}".encode(), "text/plain")
            made.isLeaf = True
            return made

        self.serve(WhoIsResource(self.server.whois, greet))
        self.assertEqual((200, b"boss of admin@ [{'level': 3}]"), self.get("boss"))
        self.assertEqual((200, b"visitor of guest@ []"), self.get("visitor"))


class UnknownCallerTests(WebCase):
    """Callers that are not of the tailnet."""

    def test_unknown(self) -> None:
        """A caller that whois does not know is refused."""

        def whois(address: str) -> object:
            raise UnknownPeer(address)

        self.root.putChild(b"guarded", requireCapability(whois, "x", Echo()))
        response, body = self.get(self.agent(), b"http://b/guarded/a")
        self.assertEqual(403, response.code)
        self.assertEqual(b"unknown caller\n", body)

    def test_forbidden(self) -> None:
        """Forbidden takes every path below it."""
        self.root.putChild(b"no", Forbidden("because"))
        response, body = self.get(self.agent(), b"http://b/no/way/through")
        self.assertEqual((403, b"because\n"), (response.code, body))
        self.assertEqual(
            [b"text/plain; charset=utf-8"],
            response.headers.getRawHeaders(b"content-type"),
        )
