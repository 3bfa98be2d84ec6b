"""
A control server for tests: HTTP/1.1 in front, then Noise, then HTTP/2.

It does what each test tells it to do, including what no server should do.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from tsrt.control.zstd import zstd
from tsrt.crypto.aead import CounterCipher
from tsrt.crypto.noise import IKResponder
from tsrt.errors import WireError
from tsrt.keys import ChallengePublic, MachineKey, MachinePublic
from tsrt.wire.controlframe import (
    RecordSplitter,
    encodeEarlyPayload,
    encodeMapFrame,
    encodeRecords,
    splitPlaintext,
)


def fixedBytes(seed: int = 0) -> Callable[[int], bytes]:
    """A source of bytes that are the same in each run, but never repeat."""
    counter = [seed << 32]

    def randbytes(count: int) -> bytes:
        result = b""
        while len(result) < count:
            counter[0] += 1
            result += hashlib.sha256(counter[0].to_bytes(8, "big")).digest()
        return result[:count]

    return randbytes


class PeerRequest:
    """A request as the server sees it, and the ways to answer it."""

    def __init__(self, connection: PeerConnection, streamID: int) -> None:
        self.connection = connection
        self.streamID = streamID
        self.method = ""
        self.path = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.reset = False
        self.ended = False
        self._queue = bytearray()
        self._ending = False

    def header(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    @property
    def json(self) -> dict[str, object]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document

    def start(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send the head of the response."""
        self.connection.h2.send_headers(
            self.streamID,
            [(":status", str(status)), *(headers or {}).items()],
        )
        self.connection.flush()

    def write(self, data: bytes) -> None:
        """Send a part of the body, as the client's windows allow."""
        self._queue += data
        self.push()

    def end(self) -> None:
        """The body is whole."""
        self._ending = True
        self.push()

    def push(self) -> None:
        h2 = self.connection.h2
        if self.reset or self.ended:
            return
        while self._queue:
            room = min(
                h2.local_flow_control_window(self.streamID), h2.max_outbound_frame_size
            )
            if room <= 0:
                break
            h2.send_data(self.streamID, bytes(self._queue[:room]))
            del self._queue[:room]
        if self._ending and not self._queue:
            self.ended = True
            h2.end_stream(self.streamID)
        self.connection.flush()

    def answer(
        self,
        body: bytes | dict[str, object] = b"",
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a whole response."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.start(status, headers)
        self.write(data)
        self.end()

    def frame(self, document: dict[str, object] | bytes, compress: bool = True) -> None:
        """Send a frame of a map response."""
        data = (
            document if isinstance(document, bytes) else json.dumps(document).encode()
        )
        if compress:
            data = zstd.compress(data)
        self.write(encodeMapFrame(data))

    def refuse(self, code: int) -> None:
        """Reset the stream."""
        self.ended = True
        self.connection.h2.reset_stream(self.streamID, code)
        self.connection.flush()


class PeerConnection(Protocol):
    """One connection to the server."""

    transport: ITCPTransport

    def __init__(self, peer: ControlPeer) -> None:
        self.peer = peer
        self.lost = False
        self._head: bytearray | None = bytearray()
        self._splitter = RecordSplitter()
        self._send: CounterCipher | None = None
        self._receive: CounterCipher | None = None
        self._counters = [0, 0]
        self.clientKey: MachinePublic | None = None
        self.clientVersion = 0
        self.h2 = H2Connection(
            H2Configuration(client_side=False, header_encoding="utf-8")
        )
        self.requests: dict[int, PeerRequest] = {}
        self.terminated: ConnectionTerminated | None = None

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = True
        for request in self.requests.values():
            request.reset = True

    def dataReceived(self, data: bytes) -> None:
        if self._head is None:
            self._recordsReceived(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._head[:end]).decode("latin-1").split("\r\n")
        surplus = bytes(self._head[end + 4 :])
        self._head = bytearray()
        method, target, _ = head[0].split(" ")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.peer.heads.append((method, target, headers))
        if "/key?" in target:
            self._raw(self.peer.keyAnswer)
            self.transport.loseConnection()
        elif target == "/ts2021":
            self._upgrade(headers, surplus)
        else:
            answer = self.peer.pages.get((method, target.split("?")[0]))
            self._raw(answer or b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            self.transport.loseConnection()

    def _raw(self, data: bytes) -> None:
        self.transport.write(data)

    def _upgrade(self, headers: dict[str, str], surplus: bytes) -> None:
        if self.peer.upgradeAnswer is not None:
            self._raw(self.peer.upgradeAnswer)
            if self.peer.closeAfterUpgradeAnswer:
                self.transport.loseConnection()
            return
        assert headers["upgrade"] == "tailscale-control-protocol"
        assert headers["connection"].lower() == "upgrade"
        initiation = base64.b64decode(headers["x-tailscale-handshake"])
        head = (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"
        )
        responder = IKResponder(self.peer.noiseKey, self.peer.randbytes)
        try:
            self.clientVersion = responder.consume(initiation)
        except WireError:
            # As the reference server does: say nothing and close.
            self._raw(head)
            self.transport.loseConnection()
            return
        if self.peer.handshakeAnswer is not None:
            self._raw(head + self.peer.handshakeAnswer)
            return
        self.clientKey = responder.clientKey
        response = responder.response()
        self._send = CounterCipher(responder.sendKey, bigEndian=True)
        self._receive = CounterCipher(responder.receiveKey, bigEndian=True)
        self._head = None
        early = b""
        if self.peer.early:
            early = self.seal(encodeEarlyPayload(ChallengePublic(b"\x07" * 32)))
        # One write, so that all of it comes in one piece with the 101.
        self._raw(head + response + early)
        self.h2.local_settings = Settings(
            client=False, initial_values=self.peer.settings
        )
        self.h2.initiate_connection()
        self.peer.connections.append(self)
        self.flush()
        if surplus:
            self._recordsReceived(surplus)

    def seal(self, plaintext: bytes) -> bytes:
        assert self._send is not None
        sealed = []
        for piece in splitPlaintext(plaintext):
            sealed.append(self._send.seal(self._counters[0], piece))
            self._counters[0] += 1
        return encodeRecords(sealed)

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.lost:
            self._raw(self.seal(data))

    def sendRaw(self, data: bytes) -> None:
        """Send bytes as they are, without Noise."""
        self._raw(data)

    def drop(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()

    def _recordsReceived(self, data: bytes) -> None:
        for _, payload in self._splitter.feed(data):
            assert self._receive is not None
            plaintext = self._receive.open(self._counters[1], payload)
            self._counters[1] += 1
            try:
                events = self.h2.receive_data(plaintext)
            except H2Error:
                self.transport.loseConnection()
                raise
            for event in events:
                self._handle(event)
        self.flush()

    def _handle(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            request = PeerRequest(self, event.stream_id)
            for rawName, rawValue in event.headers:
                # The configuration above makes them text.
                name, value = str(rawName), str(rawValue)
                if name == ":method":
                    request.method = value
                elif name == ":path":
                    request.path = value
                else:
                    request.headers.append((name, value))
            self.requests[event.stream_id] = request
        elif isinstance(event, DataReceived):
            self.requests[event.stream_id].body += event.data
            if self.peer.acknowledge:
                self.h2.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
        elif isinstance(event, StreamEnded):
            request = self.requests[event.stream_id]
            self.peer.requests.append(request)
            handler = self.peer.handlers.get(request.path.split("?")[0])
            if handler is not None:
                handler(request)
            elif self.peer.default is not None:
                self.peer.default(request)
        elif isinstance(event, StreamReset):
            self.requests[event.stream_id].reset = True
        elif isinstance(event, WindowUpdated):
            for request in list(self.requests.values()):
                request.push()
        elif isinstance(event, ConnectionTerminated):
            self.terminated = event


class ControlPeer:
    """
    The server.

    @ivar key: the key that it publishes.
    @ivar noiseKey: the key that it uses.
    @ivar keyAnswer: what it answers C{/key} with, as raw bytes.
    @ivar upgradeAnswer: raw bytes instead of the upgrade.
    @ivar handshakeAnswer: raw bytes instead of the Noise response.
    @ivar handlers: path to what is called with each request for it.
    @ivar default: what is called for other paths; C{None} leaves them waiting.
    @ivar connections: Noise connections so far.
    @ivar requests: requests inside of them so far.
    @ivar heads: HTTP/1.1 requests so far: method, target, headers.
    """

    def __init__(self, seed: int = 1) -> None:
        self.randbytes = fixedBytes(seed)
        self.key = MachineKey.generate(self.randbytes)
        self.noiseKey = self.key
        self.keyAnswer = keyAnswer(self.key.public())
        self.upgradeAnswer: bytes | None = None
        self.closeAfterUpgradeAnswer = False
        self.handshakeAnswer: bytes | None = None
        self.early = True
        self.acknowledge = True
        self.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        self.handlers: dict[str, Callable[[PeerRequest], None]] = {}
        self.default: Callable[[PeerRequest], None] | None = lambda request: (
            request.answer(b"not implemented", 501)
        )
        self.pages: dict[tuple[str, str], bytes] = {}
        self.connections: list[PeerConnection] = []
        self.requests: list[PeerRequest] = []
        self.heads: list[tuple[str, str, dict[str, str]]] = []

    def build(self) -> Protocol:
        return PeerConnection(self)

    def to(self, path: str) -> list[PeerRequest]:
        """The requests so far for C{path}."""
        return [request for request in self.requests if request.path == path]

    def rekey(self) -> None:
        """Take and publish a new key."""
        self.key = self.noiseKey = MachineKey.generate(self.randbytes)
        self.keyAnswer = keyAnswer(self.key.public())


def keyAnswer(key: MachinePublic) -> bytes:
    """The answer of a control server with this key."""
    return page(
        json.dumps(
            {
                "legacyPublicKey": MachinePublic.zero().text(),
                "publicKey": key.text(),
            }
        ).encode(),
        kind="application/json",
    )


def page(
    body: bytes,
    status: str = "200 OK",
    kind: str = "text/plain",
    headers: str = "",
) -> bytes:
    """A whole HTTP/1.1 response."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
