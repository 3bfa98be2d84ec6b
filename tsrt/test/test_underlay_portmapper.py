"""
Tests for L{tsrt.underlay.portmapper} and L{tsrt.underlay.upnp}, with the
gateways of L{tsrt.testing.gateways}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.path.mappings import Gateway, Service
from tsrt.testing.clock import elapse, resultOf
from tsrt.testing.gateways import PortControlGateway, UPnPGateway
from tsrt.testing.internet import MemoryInternet
from tsrt.testing.natkinds import NAT_KINDS
from tsrt.testing.simclock import SimulationClock
from tsrt.underlay.portmapper import PortMapper
from tsrt.wire import ssdp, upnp

LOCAL = 41641


class Home:
    """A network behind a hard NAT, with a machine in it."""

    def __init__(self) -> None:
        self.clock = SimulationClock()
        self.internet = MemoryInternet(self.clock, 7)
        self.network = self.internet.network("home", nat=NAT_KINDS["symmetric-random"])
        self.host = self.internet.host("pc", network=self.network)
        self.external = self.network.external
        self.changes: list[AddrPort | None] = []
        self.localPort = LOCAL
        self.gateway: Gateway | None = Gateway(
            parseAddress(self.network.gateway), parseAddress(self.host.addresses[0])
        )

    def mapper(self, **settings: Any) -> PortMapper:
        """A port mapper on the machine, not started."""
        return PortMapper(
            self.host,
            randbytes=self.internet.randbytes,
            gateway=lambda: succeed(self.gateway),
            localPort=lambda: self.localPort,
            onChange=self.changes.append,
            **settings,
        )

    def elapse(self, seconds: float) -> None:
        """Let time pass."""
        elapse(self.clock, seconds)

    def reaches(self, port: int) -> bool:
        """Whether a stranger's datagram comes through that port of the router."""
        arrived: list[bytes] = []

        class Sink(DatagramProtocol):
            def datagramReceived(self, datagram: bytes, addr: object) -> None:
                arrived.append(datagram)

        inside = self.host.listenUDP(self.localPort, Sink())
        name = f"stranger{len(self.internet.hosts())}"
        outside = self.internet.host(name).listenUDP(0, DatagramProtocol())
        outside.write(b"hello", (self.external, port))
        self.elapse(1)
        inside.stopListening()
        outside.stopListening()
        self.elapse(0.01)
        return bool(arrived)


class PortMapperTests(SynchronousTestCase):
    """A L{PortMapper} and the router of its network."""

    def setUp(self) -> None:
        self.home = Home()

    def start(self, *gateways: Any, **settings: Any) -> PortMapper:
        """Start the router's services, then a mapper, and let it ask."""
        for gateway in gateways:
            gateway.startService()
        mapper = self.home.mapper(**settings)
        mapper.startService()
        self.addCleanup(self.stop, mapper)
        self.home.elapse(10)
        return mapper

    def stop(self, mapper: PortMapper) -> None:
        """Stop a mapper; nothing is left scheduled."""
        if mapper.running:
            resultOf(self.home.clock, mapper.stopService())
        self.home.elapse(70)
        self.assertEqual(self.home.clock.getDelayedCalls(), [])

    def works(self, mapper: PortMapper, service: Service) -> None:
        """There is a mapping, and strangers reach us by it."""
        mapping = mapper.mapping
        self.assertIsNotNone(mapping, mapper.failure)
        self.assertEqual(mapping.service, service)
        self.assertEqual(mapping.address.text().split(":")[0], self.home.external)
        self.assertEqual(self.home.changes[-1], mapping.address)
        self.assertTrue(self.home.reaches(mapping.address.port))

    # -- the protocols ---------------------------------------------------------------

    def test_pmp(self) -> None:
        """NAT-PMP."""
        mapper = self.start(PortControlGateway(self.home.network, pcp=False))
        self.works(mapper, Service.PMP)

    def test_pcp(self) -> None:
        """PCP."""
        mapper = self.start(PortControlGateway(self.home.network, pmp=False))
        self.works(mapper, Service.PCP)

    def test_both(self) -> None:
        """NAT-PMP where both are there."""
        mapper = self.start(PortControlGateway(self.home.network))
        self.works(mapper, Service.PMP)
        self.assertEqual(mapper.services, {Service.PMP, Service.PCP})

    def test_upnp1(self) -> None:
        """UPnP version 1."""
        gateway = UPnPGateway(self.home.network)
        mapper = self.start(gateway)
        self.works(mapper, Service.UPNP)
        self.assertEqual(gateway.actions, ["GetExternalIPAddress", "AddPortMapping"])

    def test_upnp2(self) -> None:
        """UPnP version 2."""
        gateway = UPnPGateway(self.home.network, version=2)
        mapper = self.start(gateway)
        self.works(mapper, Service.UPNP)
        self.assertEqual(gateway.actions[-1], "AddAnyPortMapping")

    def test_nobody(self) -> None:
        """A router that has none of them."""
        mapper = self.start()
        self.assertIsNone(mapper.mapping)
        self.assertEqual(
            mapper.failure,
            "the gateway 192.168.1.1 maps no port: NAT-PMP is not answered, UPnP is "
            "not answered",
        )
        self.assertEqual(self.home.changes, [])

    def test_gatewayComesLater(self) -> None:
        """Somebody switches it on."""
        mapper = self.start()
        gateway = PortControlGateway(self.home.network)
        gateway.startService()
        self.home.elapse(300)
        self.works(mapper, Service.PMP)

    # -- beginning and ending --------------------------------------------------------

    def test_stop(self) -> None:
        """At the end the port is given back."""
        for gateway in (
            PortControlGateway(self.home.network, pcp=False),
            PortControlGateway(self.home.network, pmp=False),
            UPnPGateway(self.home.network),
            UPnPGateway(self.home.network, version=2),
        ):
            mapper = self.start(gateway)
            port = mapper.mapping.address.port
            resultOf(self.home.clock, mapper.stopService())
            self.home.elapse(1)
            self.assertFalse(self.home.reaches(port))
            gateway.stopService()

    def test_stopWithoutAnswer(self) -> None:
        """A UPnP gateway that is gone does not hold up the end."""
        gateway = UPnPGateway(self.home.network)
        mapper = self.start(gateway)
        gateway.isSilent = True
        began = self.home.clock.seconds()
        resultOf(self.home.clock, mapper.stopService())
        self.assertLess(self.home.clock.seconds() - began, 2.5)

    def test_stopWhileAsking(self) -> None:
        """An end in the middle of everything leaves nothing behind."""
        gateway = UPnPGateway(self.home.network)
        gateway.delay = 1.0
        gateway.startService()
        for seconds in (0.1, 1.3, 2.4, 3.5, 4.5):
            mapper = self.home.mapper()
            mapper.startService()
            self.home.elapse(seconds)
            self.stop(mapper)

    def test_disabled(self) -> None:
        """Switched off, nobody is asked."""
        gateway = PortControlGateway(self.home.network)
        mapper = self.start(gateway, isEnabled=False)
        self.assertEqual(gateway.asked, [])
        self.assertEqual(mapper.failure, "port mapping is switched off")
        mapper.networkChanged()
        self.assertEqual(gateway.asked, [])

    def test_noGateway(self) -> None:
        """Without a gateway nobody is asked."""
        self.home.gateway = None
        mapper = self.start(PortControlGateway(self.home.network))
        self.assertEqual(mapper.failure, "there is no gateway of IPv4")
        self.assertEqual(self.successResultOf(mapper.probe()), frozenset())

    def test_publicAddress(self) -> None:
        """A machine with a public address needs no gateway's."""
        self.home.gateway = Gateway(
            parseAddress("203.0.113.1"), parseAddress("203.0.113.2")
        )
        mapper = self.start()
        self.assertEqual(mapper.failure, "this machine has a public address")

    def test_noPort(self) -> None:
        """Without a socket for IPv4 there is nothing to map."""
        self.home.localPort = 0
        mapper = self.start(PortControlGateway(self.home.network))
        self.assertEqual(mapper.failure, "there is no UDP port of IPv4")

    def test_noSocket(self) -> None:
        """The system gives no socket for asking."""
        gateway = parseAddress(self.home.network.gateway)
        self.home.gateway = Gateway(gateway, parseAddress("192.168.1.77"))
        mapper = self.start(PortControlGateway(self.home.network))
        self.assertIn("the system gives none at 192.168.1.77", mapper.failure)

    def test_slowLookup(self) -> None:
        """A gateway that is found after the end is left alone."""
        gateway = PortControlGateway(self.home.network)
        gateway.startService()
        mapper = self.home.mapper()
        lookup: Deferred[Gateway | None] = Deferred()
        mapper._findGateway = lambda: lookup
        mapper.startService()
        self.stop(mapper)
        self.assertTrue(lookup.called)
        self.assertEqual(gateway.asked, [])

    # -- what changes ----------------------------------------------------------------

    def test_renewed(self) -> None:
        """A day later it is still there, on the same port."""
        for gateway in (
            PortControlGateway(self.home.network),
            UPnPGateway(self.home.network),
        ):
            mapper = self.start(gateway)
            port = mapper.mapping.address.port
            self.home.elapse(24 * 3600)
            self.assertTrue(self.home.reaches(port))
            self.stop(mapper)
            gateway.stopService()

    def test_reboot(self) -> None:
        """A router that was rebooted is asked again within ten minutes."""
        gateway = PortControlGateway(self.home.network)
        gateway.began -= 3600
        mapper = self.start(gateway)
        gateway.reboot()
        self.assertFalse(self.home.reaches(mapper.mapping.address.port))
        self.home.elapse(600)
        self.works(mapper, Service.PMP)
        self.assertEqual(mapper.counters.forgotten, 1)

    def test_newExternalAddress(self) -> None:
        """The provider's new address is noticed as soon as servers see it."""
        gateway = PortControlGateway(self.home.network)
        mapper = self.start(gateway)
        mapper.seenFrom(parseAddress(self.home.external))
        self.home.external = self.home.network.setExternal()
        mapper.seenFrom(parseAddress(self.home.external))
        self.home.elapse(1)
        self.works(mapper, Service.PMP)
        self.assertEqual(len(self.home.changes), 2)

    def test_networkChanged(self) -> None:
        """In another network another gateway is asked."""
        mapper = self.start(PortControlGateway(self.home.network))
        home = self.home
        cafe = home.internet.network("cafe", "10.0.0.0/24", nat=NAT_KINDS["easy"])
        home.internet.moveHost(home.host, cafe)
        gateway = parseAddress(cafe.gateway)
        home.gateway = Gateway(gateway, parseAddress(home.host.addresses[0]))
        mapper.networkChanged()
        home.elapse(10)
        self.assertIsNone(mapper.mapping)
        self.assertIn("10.0.0.1 maps no port", mapper.failure)
        self.assertIsNone(home.changes[-1])

    def test_otherPort(self) -> None:
        """With another port of ours the former mapping is given back."""
        mapper = self.start(PortControlGateway(self.home.network))
        former = mapper.mapping.address.port
        self.home.localPort = 5000
        mapper.networkChanged()
        self.home.elapse(10)
        self.works(mapper, Service.PMP)
        self.home.localPort = LOCAL
        self.assertFalse(self.home.reaches(former))

    def test_policy(self) -> None:
        """The tailnet's policy switches UPnP off and on again."""
        gateway = UPnPGateway(self.home.network)
        mapper = self.start(gateway)
        port = mapper.mapping.address.port
        mapper.setPolicy(False)
        self.home.elapse(10)
        self.assertIsNone(mapper.mapping)
        self.assertFalse(self.home.reaches(port))
        mapper.setPolicy(True)
        self.home.elapse(10)
        self.works(mapper, Service.UPNP)

    def test_settingBeatsPolicy(self) -> None:
        """What the user has switched off the policy does not switch on."""
        gateway = UPnPGateway(self.home.network)
        mapper = self.start(gateway, mayUPnP=False)
        mapper.setPolicy(True)
        self.home.elapse(10)
        self.assertEqual(gateway.actions, [])

    def test_probe(self) -> None:
        """Somebody wants to know what there is."""
        mapper = self.start(
            PortControlGateway(self.home.network), UPnPGateway(self.home.network)
        )
        self.assertEqual(mapper.services, {Service.PMP, Service.PCP})
        found = resultOf(self.home.clock, mapper.probe())
        self.assertEqual(found, set(Service))

    def test_onlyLook(self) -> None:
        """Somebody wants to know what there is, and no port."""
        control = PortControlGateway(self.home.network)
        igd = UPnPGateway(self.home.network)
        mapper = self.start(control, igd, mayMap=False)
        found = resultOf(self.home.clock, mapper.probe())
        self.assertEqual(found, set(Service))
        self.home.elapse(60)
        self.assertIsNone(mapper.mapping)
        self.assertEqual(self.home.changes, [])
        self.assertNotIn("AddPortMapping", igd.actions)

    def test_probeAtOnce(self) -> None:
        """A question that comes before the gateway was found waits for it."""
        PortControlGateway(self.home.network).startService()
        lookup: Deferred[Gateway | None] = Deferred()
        mapper = self.home.mapper(mayMap=False)
        mapper._findGateway = lambda: lookup
        mapper.startService()
        self.addCleanup(self.stop, mapper)
        probing = mapper.probe()
        self.assertNoResult(probing)
        lookup.callback(self.home.gateway)
        found = resultOf(self.home.clock, probing)
        self.assertEqual(found, {Service.PMP, Service.PCP})

    # -- bad gateways ------------------------------------------------------------------

    def test_refuses(self) -> None:
        """A gateway that must not."""
        gateway = PortControlGateway(self.home.network)
        gateway.result = 2
        mapper = self.start(gateway)
        self.assertIn("NAT-PMP is switched off there", mapper.failure)
        self.assertIn("PCP is switched off there", mapper.failure)

    def test_refusesByUPnP(self) -> None:
        """The same by UPnP, with the gateway's own words."""
        gateway = UPnPGateway(self.home.network)
        gateway.refusal = upnp.NOT_AUTHORIZED
        mapper = self.start(gateway)
        self.assertIn("its UPnP gives no port (606 No)", mapper.failure)

    def test_otherSource(self) -> None:
        """Answers from another port are not believed."""
        gateway = PortControlGateway(self.home.network)
        gateway.source = 5350
        mapper = self.start(gateway)
        self.assertIsNone(mapper.mapping)
        self.assertGreater(mapper.counters.droppedForeign, 3)

    def test_late(self) -> None:
        """Answers that come late, but not too late, count."""
        gateway = PortControlGateway(self.home.network)
        gateway.delay = 0.4
        self.works(self.start(gateway), Service.PMP)

    def test_portTaken(self) -> None:
        """When somebody has the port there are others."""
        for version in (1, 2):
            gateway = UPnPGateway(self.home.network, version=version)
            gateway.taken.add(LOCAL)
            mapper = self.start(gateway)
            self.works(mapper, Service.UPNP)
            self.assertNotEqual(mapper.mapping.address.port, LOCAL)
            self.stop(mapper)
            gateway.stopService()

    def test_permanentOnly(self) -> None:
        """A gateway that knows no time gets its way, and the port back."""
        gateway = UPnPGateway(self.home.network)
        gateway.permanentOnly = True
        mapper = self.start(gateway)
        self.works(mapper, Service.UPNP)
        port = mapper.mapping.address.port
        self.home.elapse(3 * 24 * 3600)
        self.assertTrue(self.home.reaches(port))
        self.stop(mapper)
        self.assertFalse(self.home.reaches(port))

    def test_noAddress(self) -> None:
        """A gateway that is not connected, or behind a provider's NAT."""
        for address, words in (
            ("0.0.0.0", "it has no address itself"),
            ("100.64.1.2", "its own address 100.64.1.2 is not a public one"),
        ):
            gateway = UPnPGateway(self.home.network)
            gateway.external = address
            mapper = self.start(gateway)
            self.assertIsNone(mapper.mapping)
            self.assertIn(words, mapper.failure)
            self.stop(mapper)
            gateway.stopService()

    def test_badDescriptions(self) -> None:
        """Documents that are none, too many, or lead elsewhere."""
        elsewhere = upnp.Description(
            "x", "", (upnp.Service(upnp.WAN_IP_1, "http://198.51.100.1/control"),)
        )
        useless = upnp.Description("x", "", (upnp.Service("urn:other", "/x"),))
        bomb = b'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaa">]><root>&a;</root>'
        for document, words in (
            (b"", "an XML document is"),
            (b"<root>", "malformed"),
            (bomb, "declares a document type"),
            (b"<root>" + b"x" * 200_000, "more than 131072 bytes"),
            (upnp.buildDescription(elsewhere), "no service that maps ports"),
            (upnp.buildDescription(useless), "no service that maps ports"),
        ):
            gateway = UPnPGateway(self.home.network)
            gateway.document = document
            mapper = self.start(gateway)
            self.assertIsNone(mapper.mapping)
            self.assertIn(words, mapper.failure)
            self.stop(mapper)
            gateway.stopService()
            self.assertEqual(gateway.actions, [])

    def test_badLocations(self) -> None:
        """Descriptions that are not on the gateway are not read."""
        for location in (
            "http://198.51.100.1/gateway.xml",
            "https://192.168.1.1/gateway.xml",
            "http://192.168.1.1@198.51.100.1/",
            "http://user@192.168.1.1:5000/",
            "http://[bad",
            "file:///etc/passwd",
            "gateway.xml",
            "http://192.168.1.1:99999/",
        ):
            gateway = UPnPGateway(self.home.network)
            gateway.location = location
            mapper = self.start(gateway)
            self.assertIn("UPnP is not answered", mapper.failure, location)
            self.stop(mapper)
            gateway.stopService()

    def test_impostor(self) -> None:
        """Another machine of the network that says it is the gateway."""
        home = self.home
        mapper = self.start()
        other = home.internet.host("other", network=home.network)
        liar = other.listenUDP(0, DatagramProtocol())
        found = ssdp.Found(ssdp.GATEWAY, "http://192.168.1.1:5000/", "uuid:x", "x")
        mapper.networkChanged()
        home.elapse(1.5)
        (port,) = home.host.ports
        for _ in range(100):
            liar.write(ssdp.buildFound(found), (home.host.addresses[0], port.port))
        home.elapse(10)
        self.assertIn("UPnP is not answered", mapper.failure)
        liar.stopListening()

    def test_hangs(self) -> None:
        """A gateway that answers searches and then nothing more."""
        gateway = UPnPGateway(self.home.network)
        gateway.hangs = True
        mapper = self.start(gateway)
        self.home.elapse(10)
        self.assertIn("its UPnP does not answer", mapper.failure)

    def test_nonsense(self) -> None:
        """A gateway that answers actions with something else."""
        gateway = UPnPGateway(self.home.network)
        gateway.nonsense = b"<html>Please log in</html>"
        mapper = self.start(gateway)
        self.assertIn("its UPnP answers what is no answer", mapper.failure)
