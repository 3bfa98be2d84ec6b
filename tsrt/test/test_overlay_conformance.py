"""
What Twisted holds its own transports to, held against ours.

The mix-ins come from Twisted's own tests; they build a reactor, and get an
L{OverlayReactor}.  Left out is

 - what is about file descriptors: adopting sockets, EMFILE, scope ids,
   C{SO_REUSEADDR}, and calling a transport's C{connectionLost} from outside;
 - the exact wording of log messages and of errors that the host's C library
   phrases, and the C{repr} of transports;
 - what needs the loopback interface.  These tests are repeated in
   L{tsrt.test.test_overlay_tcp} and L{tsrt.test.test_overlay_udp} with
   addresses of the overlay;
 - what counts on a connection being accepted in the same turn in which it is
   made, and lost: here the other side is some milliseconds away, and nobody
   is told of a connection that was reset before it could be accepted.  Of
   these, C{test_doubleHalfClose} is repeated in
   L{tsrt.test.test_overlay_halfclose}.
"""

from __future__ import annotations

import socket

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from tsrt.overlay import feed
from tsrt.test.overlaynet import B4, B6
from tsrt.test.overlayreactor import OverlayReactor

try:
    # They need a library that is no dependency of Twisted itself.
    from twisted.internet.test import test_tcp, test_tls, test_udp
    from twisted.internet.test.connectionmixins import EndpointCreator
except ImportError:
    skip = "the tests of Twisted cannot be imported"
else:

    def _leftOut(self) -> None:
        """The module's docstring says why."""

    _leftOut.skip = "not applicable to the overlay"

    class TailnetCreator(EndpointCreator):
        """Twisted's endpoints, over the overlay."""

        def __init__(self, interface: str) -> None:
            self.interface = interface

        def server(self, reactor):
            return TCP4ServerEndpoint(reactor, 0, interface=self.interface)

        def client(self, reactor, serverAddress):
            return TCP4ClientEndpoint(reactor, self.interface, serverAddress.port)

    class ClientTests(test_tcp.TCPClientTestsBase, SynchronousTestCase):
        """Connections over IPv4."""

        reactorFactory = OverlayReactor
        endpoints = TailnetCreator(B4)
        family = socket.AF_INET
        addressClass = IPv4Address
        test_addresses = _leftOut
        test_connectPortUnderflow = _leftOut
        test_connectPortOverflow = _leftOut
        test_connectPortZero = _leftOut
        test_getaddrinfo_negative_port = _leftOut
        test_getaddrinfo_overflow_port = _leftOut

        @property
        def port(self) -> int:
            """Where L{listen} listens, or where nobody does."""
            return self._port.getHost().port if self._port is not None else 9

    class Client6Tests(ClientTests):
        """Connections over IPv6."""

        endpoints = TailnetCreator(B6)
        family = socket.AF_INET6
        addressClass = IPv6Address

    class ConnectorTests(test_tcp.TCPConnectorTestsBuilder, SynchronousTestCase):
        """What C{connectTCP} gives."""

        reactorFactory = OverlayReactor
        interface = B4

    class Connector6Tests(ConnectorTests):
        """The same with IPv6."""

        interface = B6

    class PortTests(test_tcp.TCPPortTestsBuilder, SynchronousTestCase):
        """What C{listenTCP} gives."""

        reactorFactory = OverlayReactor
        test_startedListeningLogMessage = _leftOut
        test_connectionLostLogMsg = _leftOut
        test_closePeerOnEMFILE = _leftOut
        test_portGetHostOnIPv6 = _leftOut
        test_portGetHostOnIPv6ScopeID = _leftOut
        test_buildProtocolIPv4Address = _leftOut
        test_buildProtocolIPv6Address = _leftOut
        test_buildProtocolIPv6AddressScopeID = _leftOut
        test_serverGetHostOnIPv4 = _leftOut
        test_serverGetHostOnIPv6 = _leftOut
        test_serverGetHostOnIPv6ScopeID = _leftOut
        test_serverGetPeerOnIPv4 = _leftOut
        test_serverGetPeerOnIPv6 = _leftOut
        test_serverGetPeerOnIPv6ScopeID = _leftOut

    class ConnectionTests(test_tcp.TCPConnectionTestsBuilder, SynchronousTestCase):
        """Pausing and half-closing."""

        reactorFactory = OverlayReactor
        test_resumeProducingWhileDisconnected = _leftOut
        test_doubleHalfClose = _leftOut

    class TransportTests(test_tcp.TCPTransportTestsBuilder, SynchronousTestCase):
        """Writing and producers."""

        reactorFactory = OverlayReactor
        test_serverAddressTCP4 = _leftOut
        test_serverAddressTCP6 = _leftOut

        def setWriteBufferSize(self, transport, value):
            self.patch(feed, "LEAST_HIGH_WATER", value)
            self.patch(feed, "MOST_HIGH_WATER", value)
            return lambda: None

    class AbortTests(test_tcp.AbortConnectionTests, SynchronousTestCase):
        """C{abortConnection}."""

        reactorFactory = OverlayReactor

    class TLSClientTests(test_tls.SSLClientTestsMixin, SynchronousTestCase):
        """C{connectSSL} and C{listenSSL}."""

        reactorFactory = OverlayReactor

    class StartTLSTests(test_tls.StartTLSClientTestsMixin, SynchronousTestCase):
        """C{startTLS}."""

        reactorFactory = OverlayReactor

    class TLSPortTests(test_tls.TLSPortTestsBuilder, SynchronousTestCase):
        """What C{listenSSL} gives."""

        reactorFactory = OverlayReactor
        test_startedListeningLogMessage = _leftOut
        test_connectionLostLogMsg = _leftOut
        test_closePeerOnEMFILE = _leftOut

    class TLSAbortTests(test_tls.AbortSSLConnectionTests, SynchronousTestCase):
        """C{abortConnection} below TLS."""

        reactorFactory = OverlayReactor
        test_resumeProducingAbort = test_resumeProducingThrows = _leftOut

    class UDPTests(test_udp.UDPServerTestsBuilder, SynchronousTestCase):
        """What C{listenUDP} gives."""

        reactorFactory = OverlayReactor
        test_startedListeningLogMessage = _leftOut
        test_connectionLostLogMessage = _leftOut
        test_getHost = _leftOut
        test_writeToIPv6Interface = test_connectedWriteToIPv6Interface = _leftOut
        test_logPrefix = test_writeSequence = _leftOut
        test_getHostIPv6 = _leftOut
        # A tailnet has no broadcast; see L{tsrt.test.test_overlay_udp}.
        test_allowBroadcast = _leftOut
