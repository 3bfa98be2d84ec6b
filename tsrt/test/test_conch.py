"""Conch, Twisted's SSH, unchanged over the tailnet: a server, and a client."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.avatar import ConchUser
from twisted.conch.client.knownhosts import KnownHostsFile
from twisted.conch.endpoints import SSHCommandClientEndpoint
from twisted.conch.interfaces import ISession
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.session import SSHSession
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.components import registerAdapter
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tsrt.testing.tailnet import TestTailnet

MEGABYTE = bytes(range(256)) * 4096


class User(ConchUser):
    """Who was let in."""

    def __init__(self) -> None:
        super().__init__()
        self.channelLookup[b"session"] = SSHSession


@implementer(ISession)
class Commands:
    """What the server runs: one command that repeats its input, and a big one."""

    clock: Any = None

    def __init__(self, user: User) -> None:
        self.ended = False

    def execCommand(self, proto: Any, line: bytes) -> None:
        """Begin, once the client knows that it has."""
        # Until Twisted 26.10 a session ends only if its program has a transport.
        proto.makeConnection(StringTransport())
        self.clock.callLater(0, self.run, proto, line)

    def run(self, proto: Any, line: bytes) -> None:
        """Write the answer and end."""
        if line == b"big":
            proto.outReceived(MEGABYTE)
        else:
            peer = proto.session.conn.transport.transport.getPeer().host
            proto.outReceived(b"%s from %s" % (line, peer.encode()))
        proto.processEnded(Failure(ProcessDone(0)))

    def eofReceived(self) -> None:
        """The client sends no more."""

    def closed(self) -> None:
        """The client has gone."""
        self.ended = True


@implementer(IRealm)
class Realm:
    """Who is let in."""

    def requestAvatar(self, name: object, mind: object, *interfaces: object) -> Any:
        """Give everybody a session."""
        return interfaces[0], User(), lambda: None


registerAdapter(Commands, User, ISession)


class Gather(Protocol):
    """Keeps what comes, and how it ended."""

    def __init__(self) -> None:
        self.data = b""
        self.ended: Deferred[type[BaseException]] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(reason.type)


class ConchTests(SynchronousTestCase):
    """A session from node C{a} to node C{b}."""

    def setUp(self) -> None:
        self.net = TestTailnet(nodes=["a", "b"])
        self.addCleanup(self.net.close)
        clock = self.net.clock
        self.patch(Commands, "clock", clock)
        self.key = Key(Ed25519PrivateKey.generate())
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"alice", b"wonder")

        class UserAuth(SSHUserAuthServer):
            """Counts the simulated time."""

        UserAuth.clock = clock  # type: ignore[assignment]

        factory = SSHFactory()
        factory.publicKeys = {b"ssh-ed25519": self.key.public()}
        factory.privateKeys = {b"ssh-ed25519": self.key}
        factory.portal = Portal(Realm(), [checker])
        factory.services = {**SSHFactory.services, b"ssh-userauth": UserAuth}
        self.net.wait(self.net["b"].serverEndpoint(22).listen(factory))

    def run_(self, command: bytes, password: bytes = b"wonder") -> Gather:
        """Run a command by SSH; return what it wrote."""
        known = KnownHostsFile(FilePath(self.mktemp()))
        known.addHostKey(b"b", self.key.public())
        known.addHostKey(b"100.64.0.2", self.key.public())
        endpoint = SSHCommandClientEndpoint.newConnection(
            self.net["a"].reactor,
            command,
            b"alice",
            b"b",
            22,
            password=password,
            knownHosts=known,
            ui=object(),
        )
        gather = Gather()
        self.net.wait(endpoint.connect(Factory.forProtocol(lambda: gather)))
        return gather

    def test_command(self) -> None:
        """A command runs, knows who asks, and its end comes as it should."""
        gather = self.run_(b"hello")
        self.assertIs(self.net.wait(gather.ended), ConnectionDone)
        self.assertEqual(gather.data, b"hello from 100.64.0.1")

    def test_much(self) -> None:
        """A megabyte comes whole, through the windows of SSH and TCP."""
        gather = self.run_(b"big")
        self.net.wait(gather.ended)
        self.assertTrue(gather.data == MEGABYTE, len(gather.data))
