"""
A control client made of nothing but the handshake and h2, for tests.

It shares no code with L{tsrt.control}, so that a mistake made there is not made
here as well.  Client and server are joined in memory: L{RawClient.pump} moves
what either has written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys

import h2.config
import h2.connection
import h2.events
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface import implementer

from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.noise import IKInitiator
from tsrt.keys import DiscoKey, MachineKey, MachinePublic, NodeKey
from tsrt.testing.control import ControlServer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

VERSION = 145
ZERO_KEY = "nodekey:" + "0" * 64
ZERO_TIME = "0001-01-01T00:00:00Z"


class Random:
    """Random bytes that are the same in each run."""

    def __init__(self, seed=b"seed"):
        self._state = seed

    def __call__(self, count):
        """Give the next bytes."""
        made = b""
        while len(made) < count:
            self._state = hashlib.sha256(self._state).digest()
            made += self._state
        return made[:count]


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryPipe:
    """The server's transport."""

    limit = 64 * 1024

    def __init__(self, client):
        self.client = client
        self.buffer = b""
        self.incoming = []
        self.producer = None
        self.producerPaused = False
        self.reading = True
        self.closing = False
        self.closed = False
        self.protocol = None

    def write(self, data):
        """Keep what the server writes until the client reads."""
        if self.closed:
            return
        self.buffer += data
        if self.producer and not self.producerPaused and len(self.buffer) > self.limit:
            self.producerPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, data):
        """Several writes."""
        self.write(b"".join(data))

    def take(self):
        """Read what the server has written."""
        data, self.buffer = self.buffer, b""
        if self.producerPaused:
            self.producerPaused = False
            self.producer.resumeProducing()
        if self.closing and not self.buffer:
            self._lost(ConnectionDone())
        return data

    def send(self, data):
        """Write to the server."""
        self.incoming.append(data)
        self.deliver()

    def deliver(self):
        """Hand the server what it is willing to read."""
        while self.incoming and self.reading and not self.closed and not self.closing:
            self.protocol.dataReceived(self.incoming.pop(0))

    def _lost(self, reason):
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason))

    def disconnect(self):
        """Close from the client's side."""
        self._lost(ConnectionDone())

    def loseConnection(self):
        """Close when all is read."""
        self.closing = True
        if not self.buffer:
            self._lost(ConnectionDone())

    def abortConnection(self):
        """Close now."""
        self._lost(ConnectionLost())

    def loseWriteConnection(self):
        """Not needed."""

    def registerProducer(self, producer, streaming):
        """See IConsumer."""
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self):
        """See IConsumer."""
        self.producer = None
        self.producerPaused = False

    def pauseProducing(self):
        """The server does not want to read."""
        self.reading = False

    def resumeProducing(self):
        """The server wants to read."""
        self.reading = True
        self.client.reactor.callLater(0, self.deliver)

    def stopProducing(self):
        """See IPushProducer."""

    def getHost(self):
        """See ITransport."""
        return IPv4Address("TCP", "127.0.0.1", 80)

    getPeer = getHost

    def getTcpNoDelay(self):
        """See ITCPTransport."""

    def setTcpNoDelay(self, enabled):
        """See ITCPTransport."""

    getTcpKeepAlive = getTcpNoDelay
    setTcpKeepAlive = setTcpNoDelay


class Response:
    """The response to one request, as far as it has come."""

    def __init__(self):
        self.status = None
        self.headers = {}
        self.body = b""
        self.ended = False
        self.reset = False
        self._read = 0

    @property
    def text(self):
        """The body as text, without the last line end."""
        return self.body.decode("utf-8").removesuffix("\n")

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    def frames(self):
        """The new frames of a map stream, decoded."""
        found = []
        while len(self.body) - self._read >= 4:
            (length,) = struct.unpack_from("<I", self.body, self._read)
            end = self._read + 4 + length
            if len(self.body) < end:
                break
            content = self.body[self._read + 4 : end]
            self._read = end
            if content[:4] == b"\x28\xb5\x2f\xfd":
                content = zstd.decompress(content)
            found.append(json.loads(content))
        return found


class RawClient:
    """One connection to a control server."""

    def __init__(self, server, reactor):
        self.reactor = reactor
        self.pipe = MemoryPipe(self)
        self.pipe.protocol = server.factory.buildProtocol(None)
        self.pipe.protocol.makeConnection(self.pipe)
        self.received = b""
        self.responses = {}
        self.acknowledging = True
        self.stalled = False
        self.terminated = False
        self.early = None
        self.h2 = None

    # -- HTTP/1.1 --------------------------------------------------------------

    def http(self, data):
        """Send bytes and return all that comes back."""
        self.pipe.send(data)
        return self.pipe.take()

    def get(self, path, method="GET", body=b"", headers=""):
        """Make a plain request; the status and the body."""
        answer = self.http(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), content

    # -- Noise -------------------------------------------------------------------

    def upgrade(self, initiation, method="POST", surplus=b""):
        """Send an upgrade; the head of the answer, and what came behind."""
        encoded = base64.b64encode(initiation).decode("ascii")
        answer = self.http(
            f"{method} /ts2021 HTTP/1.1\r\nHost: x\r\n"
            "Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
            f"X-Tailscale-Handshake: {encoded}\r\n"
            f"Content-Length: 0\r\n\r\n".encode()
            + surplus
        )
        head, _, rest = answer.partition(b"\r\n\r\n")
        return head, rest

    def connect(self, machine, serverKey, version=VERSION, method="POST"):
        """Shake hands and begin with HTTP/2."""
        initiator = IKInitiator(machine, serverKey, version, Random(b"client"))
        head, rest = self.upgrade(initiator.initiation(), method)
        assert head.startswith(b"HTTP/1.1 101 "), head
        send, receive, _ = initiator.finish(rest[:51])
        self._sealing = CounterCipher(send, bigEndian=True)
        self._opening = CounterCipher(receive, bigEndian=True)
        self._sent = self._got = 0
        self._plain = b""
        self.received = rest[51:]
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self.h2.initiate_connection()
        self.pump()
        return self

    def seal(self, plain):
        """Bytes as records."""
        records = b""
        for at in range(0, len(plain), 4077):
            sealed = self._sealing.seal(self._sent, plain[at : at + 4077])
            self._sent += 1
            records += struct.pack("!BH", 4, len(sealed)) + sealed
        return records

    def pump(self):
        """Move everything that either side has written."""
        while not self.pipe.closed:
            data = self.h2.data_to_send()
            if data:
                self.pipe.send(self.seal(data))
            if self.stalled:
                break
            self.received += self.pipe.take()
            plain = self._openRecords()
            if not plain and not data:
                break
            self._take(plain)

    def _openRecords(self):
        plain = b""
        while len(self.received) >= 3:
            kind, length = struct.unpack_from("!BH", self.received)
            if len(self.received) < 3 + length:
                break
            assert kind == 4, kind
            plain += self._opening.open(self._got, self.received[3 : 3 + length])
            self._got += 1
            self.received = self.received[3 + length :]
        return plain

    def _take(self, plain):
        if self.early is None:
            self._plain += plain
            assert self._plain.startswith(b"\xff\xff\xffTS")
            (length,) = struct.unpack_from("!I", self._plain, 5)
            self.early = json.loads(self._plain[9 : 9 + length])
            plain = self._plain[9 + length :]
        for event in self.h2.receive_data(plain):
            self._event(event)

    def _event(self, event):
        response = self.responses.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ConnectionTerminated):
            self.terminated = True
        elif response is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            response.headers = dict(event.headers)
            response.status = int(response.headers.pop(":status"))
        elif isinstance(event, h2.events.DataReceived):
            response.body += event.data
            if self.acknowledging:
                self.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
        elif isinstance(event, h2.events.StreamEnded):
            response.ended = True
        elif isinstance(event, h2.events.StreamReset):
            response.reset = True

    # -- requests ------------------------------------------------------------------

    def request(self, path, body=b"", method="POST"):
        """Make a request over Noise; the response fills by itself."""
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        number = self.h2.get_next_available_stream_id()
        response = self.responses[number] = Response()
        response.streamID = number
        headers = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "control"),
            (":path", path),
        ]
        self.h2.send_headers(number, headers, end_stream=not body)
        for at in range(0, len(body), 16384):
            last = at + 16384 >= len(body)
            self.h2.send_data(number, body[at : at + 16384], end_stream=last)
            self.pump()
        self.pump()
        return response

    def cancel(self, response):
        """Give a request up."""
        self.h2.reset_stream(response.streamID, 8)
        self.pump()

    def close(self):
        """Drop the connection."""
        self.pipe.disconnect()


class RawNode:
    """A machine with one node, and its connection."""

    def __init__(self, harness, hostname, seed=None):
        random = Random((seed or hostname).encode())
        self.harness = harness
        self.hostname = hostname
        self.random = random
        self.machine = MachineKey.generate(random)
        self.nodeKey = NodeKey.generate(random)
        self.disco = DiscoKey.generate(random)
        self.hostinfo = {
            "BackendLogID": "00" * 32,
            "OS": "linux",
            "Hostname": hostname,
            "Services": [{"Proto": "peerapi4", "Port": 4000}],
        }
        self.version = VERSION
        self.poll = None
        self.connect()

    def connect(self):
        """Make a fresh connection."""
        self.client = self.harness.client()
        self.client.connect(self.machine, self.harness.key, self.version)

    def newKey(self):
        """Take another node key; the old one is returned."""
        old = self.nodeKey
        self.nodeKey = NodeKey.generate(self.random)
        return old

    @property
    def keyText(self):
        """The public node key as text."""
        return self.nodeKey.public().text()

    @property
    def record(self):
        """What the server knows of this node."""
        for node in self.harness.server.nodes():
            if node.nodeKey == self.nodeKey.public():
                return node
        return None

    def register(self, authKey="", **fields):
        """Send a register request; the response."""
        body = {
            "Version": self.version,
            "NodeKey": self.keyText,
            "OldNodeKey": ZERO_KEY,
            "NLKey": "nlpub:" + "00" * 32,
            "Expiry": ZERO_TIME,
            "Followup": "",
            "Hostinfo": self.hostinfo,
            "NodeKeySignature": None,
            **fields,
        }
        if authKey:
            body["Auth"] = {"AuthKey": authKey}
        return self.client.request("/machine/register", body)

    def map(self, **fields):
        """Send a map request; the response."""
        body = {
            "Version": self.version,
            "KeepAlive": True,
            "NodeKey": self.keyText,
            "DiscoKey": self.disco.public().text(),
            "Stream": False,
            "Hostinfo": self.hostinfo,
            **fields,
        }
        return self.client.request("/machine/map", body)

    def listen(self, **fields):
        """Open a map stream; its first frame."""
        self.poll = self.map(Stream=True, **fields)
        assert self.poll.status == 200, self.poll.text
        (first,) = self.poll.frames()
        return first

    def update(self, **fields):
        """Send a lite update."""
        response = self.map(OmitPeers=True, **fields)
        assert (response.status, response.body) == (200, b""), response.text
        return response

    def logout(self):
        """Send a logout."""
        return self.register(Expiry="1970-01-01T00:02:03Z")

    def heard(self):
        """The frames that have come since the last look."""
        self.client.pump()
        return self.poll.frames()


class Harness:
    """A running server and its clock."""

    def __init__(self, config=None, start=True):
        self.reactor = MemoryReactorClock()
        self.server = ControlServer(
            self.reactor, 8080, config, randbytes=Random(b"server")
        )
        self.key: MachinePublic = self.server.publicKey
        self.clients = []
        if start:
            self.server.startService()
            self.settle()

    def client(self):
        """A new connection."""
        client = RawClient(self.server, self.reactor)
        self.clients.append(client)
        return client

    def settle(self):
        """Let everything happen that is due now."""
        for _ in range(20):
            Clock.advance(self.reactor, 0)
            for client in self.clients:
                if client.h2 is not None:
                    client.pump()

    def advance(self, seconds, step=1.0):
        """Let time pass."""
        while seconds > 0:
            self.reactor.advance(min(step, seconds))
            seconds -= step
            self.settle()

    def node(self, hostname="n1", authKey=None, listen=True, **fields):
        """A node that has joined, and listens."""
        node = RawNode(self, hostname, seed=f"{hostname}{len(self.clients)}")
        if authKey is None:
            authKey = self.server.createAuthKey(reusable=True).text
        response = node.register(authKey, **fields)
        assert response.status == 200, response.text
        assert response.json()["MachineAuthorized"] or not listen, response.text
        if listen:
            node.first = node.listen()
            self.settle()
            for client in self.clients:
                client.pump()
        return node

    def quiet(self, *nodes):
        """Forget what nodes have heard so far."""
        self.settle()
        for node in nodes:
            node.heard()

    def stop(self):
        """Stop; the delayed calls that are left."""
        stopped = self.server.stopService()
        self.reactor.advance(0)
        assert stopped.called
        stopped.addErrback(lambda reason: reason.raiseException())
        return self.reactor.getDelayedCalls()
