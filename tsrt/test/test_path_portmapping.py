"""
Tests for L{tsrt.path.portmapping}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import AddrPort, parseAddress
from tsrt.path.mappings import Gateway, MapByUPnP, Service, UnmapByUPnP
from tsrt.path.portmapping import (
    CHECK_EVERY,
    LEAST_RENEWAL,
    LONGEST_LIFETIME,
    RETRY_FAILED,
    RETRY_REFUSED,
    SEEN_FOR,
    WAITS,
    PortMappingMachine,
)
from tsrt.wire import portmap

GATEWAY = Gateway(parseAddress("192.168.1.1"), parseAddress("192.168.1.7"))
OTHER = Gateway(parseAddress("192.168.1.2"), parseAddress("192.168.1.7"))
SOURCE = AddrPort(GATEWAY.address, portmap.GATEWAY_PORT)
LOCAL = 41641
NONCE = bytes(12)
PUBLIC = "203.0.113.9"
OUTSIDE = AddrPort.parse("203.0.113.9:50000")

hexa = bytes.fromhex

# What the machine asks first, written by hand from the RFCs.
ASK_ADDRESS = hexa("0000")
ASK_PORT = hexa("00010000a2a9000000001c20")
ANNOUNCE = hexa("02000000000000000000000000000000 0000ffffc0a80107")
ASK_PCP = (
    hexa("0201000000001c20 00000000000000000000ffffc0a80107")
    + NONCE
    + hexa("11000000a2a90000 00000000000000000000ffff00000000")
)


def pmpAddress(address: str = PUBLIC, epoch: int = 100, result: int = 0) -> bytes:
    """A NAT-PMP answer."""
    return (
        hexa("0080")
        + result.to_bytes(2, "big")
        + epoch.to_bytes(4, "big")
        + (parseAddress(address))
    )


def pmpMapping(
    port: int = 50000,
    lifetime: int = 7200,
    epoch: int = 100,
    result: int = 0,
    internal: int = LOCAL,
) -> bytes:
    """A NAT-PMP answer."""
    return (
        hexa("0081")
        + result.to_bytes(2, "big")
        + epoch.to_bytes(4, "big")
        + internal.to_bytes(2, "big")
        + port.to_bytes(2, "big")
        + lifetime.to_bytes(4, "big")
    )


def pcpAnnounce(epoch: int = 100) -> bytes:
    """A PCP answer."""
    return hexa("0280000000000000") + epoch.to_bytes(4, "big") + bytes(12)


def pcpMapping(
    port: int = 50000,
    lifetime: int = 7200,
    epoch: int = 100,
    result: int = 0,
    nonce: bytes = NONCE,
    address: str = PUBLIC,
) -> bytes:
    """A PCP answer."""
    return (
        bytes((2, 0x81, 0, result))
        + lifetime.to_bytes(4, "big")
        + epoch.to_bytes(4, "big")
        + bytes(12)
        + nonce
        + hexa("11000000")
        + LOCAL.to_bytes(2, "big")
        + port.to_bytes(2, "big")
        + hexa("00000000000000000000ffff")
        + parseAddress(address)
    )


class MachineTests(SynchronousTestCase):
    """One gateway, by hand."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.machine = PortMappingMachine(randbytes=bytes)
        self.machine.begin(GATEWAY, LOCAL, self.now)

    def hear(self, *datagrams: bytes, source: AddrPort = SOURCE) -> None:
        """The gateway answers."""
        for datagram in datagrams:
            self.machine.received(datagram, source, self.now)

    def next(self) -> float:
        """Go to the machine's next deadline; return the seconds until then."""
        deadline = self.machine.deadline()
        seconds = deadline - self.now
        self.now = deadline
        self.machine.tick(self.now)
        return seconds

    def giveUp(self) -> None:
        """Let the protocol that is being asked not answer."""
        for _ in WAITS:
            self.next()

    # -- choosing ------------------------------------------------------------------

    def test_first(self) -> None:
        """At first everything is asked that costs one datagram."""
        self.assertEqual(self.machine.take(), [ASK_ADDRESS, ASK_PORT, ANNOUNCE])
        self.assertEqual(self.machine.takeUPnP(), [])

    def test_pmp(self) -> None:
        """Address and port make a mapping, in either order."""
        self.hear(pmpMapping())
        self.assertIsNone(self.machine.mapping)
        self.hear(pmpAddress())
        mapping = self.machine.mapping
        self.assertEqual(mapping.address, OUTSIDE)
        self.assertEqual(mapping.service, Service.PMP)
        self.assertEqual(mapping.expires, self.now + 7200)

    def test_pmpBeatsPCP(self) -> None:
        """Where both are spoken NAT-PMP is used."""
        self.machine.take()
        self.hear(pcpAnnounce(), pmpAddress(), pmpMapping())
        self.assertEqual(self.machine.mapping.service, Service.PMP)
        self.assertEqual(self.machine.take(), [])

    def test_repeats(self) -> None:
        """What is not answered is asked again, and nothing else."""
        self.machine.take()
        self.hear(pmpAddress())
        self.assertEqual(self.next(), WAITS[0])
        self.assertEqual(self.machine.take(), [ASK_PORT, ANNOUNCE])

    def test_pcp(self) -> None:
        """A gateway that answers only in PCP is asked in it."""
        self.hear(pcpAnnounce())
        self.machine.take()
        self.next()
        self.assertEqual(self.machine.take(), [ASK_PCP])
        self.hear(pcpMapping())
        self.assertEqual(self.machine.mapping.address, OUTSIDE)
        self.assertEqual(self.machine.mapping.service, Service.PCP)

    def test_unsupportedVersion(self) -> None:
        """
        That the gateway does not know PCP is said in NAT-PMP, and the other way
        round; that is no failure of the protocol in which it is said.
        """
        self.hear(pmpAddress("0.0.0.0", result=1))
        self.hear(pmpAddress(), pmpMapping())
        self.assertEqual(self.machine.mapping.service, Service.PMP)

    def test_upnp(self) -> None:
        """When nobody answers in either, UPnP is tried."""
        self.giveUp()
        self.assertEqual(self.machine.takeUPnP(), [MapByUPnP(LOCAL, 0)])
        self.assertIsNone(self.machine.deadline())
        self.machine.upnpMapped(OUTSIDE, 7200.0, self.now)
        self.assertEqual(self.machine.mapping.address, OUTSIDE)
        self.assertEqual(self.machine.services(self.now), {Service.UPNP})

    def test_refusedThenUPnP(self) -> None:
        """A refusal does not have to be waited for."""
        self.hear(pmpAddress(), pmpMapping(result=2))
        self.assertEqual(self.machine.takeUPnP(), [MapByUPnP(LOCAL, 0)])

    def test_refusedThenPCP(self) -> None:
        """PCP may give what NAT-PMP refuses."""
        self.machine.take()
        self.hear(pcpAnnounce(), pmpAddress("0.0.0.0", result=2))
        self.assertEqual(self.machine.take(), [ASK_PCP])

    def test_noUPnP(self) -> None:
        """UPnP is not tried where it may not be."""
        self.machine.mayUPnP = False
        self.giveUp()
        self.assertEqual(self.machine.takeUPnP(), [])
        self.assertEqual(
            self.machine.failure,
            "the gateway 192.168.1.1 maps no port: NAT-PMP is not answered",
        )

    def test_failure(self) -> None:
        """It says why, and tries again later."""
        self.giveUp()
        self.machine.upnpFailed("UPnP is not answered", False, self.now)
        self.assertEqual(
            self.machine.failure,
            "the gateway 192.168.1.1 maps no port: NAT-PMP is not answered, "
            "UPnP is not answered",
        )
        self.assertEqual(self.machine.counters.failed, 1)
        self.machine.take()
        self.assertEqual(self.next(), RETRY_FAILED)
        self.assertEqual(self.machine.take(), [ASK_ADDRESS, ASK_PORT, ANNOUNCE])

    def test_refusal(self) -> None:
        """Whoever must not give ports is left in peace for longer."""
        self.hear(pmpAddress(), pmpMapping(result=2))
        self.machine.upnpFailed("its UPnP gives no port (606)", True, self.now)
        self.assertIn("NAT-PMP is switched off there", self.machine.failure)
        self.assertEqual(self.next(), RETRY_REFUSED)

    def test_results(self) -> None:
        """Each result is told in words; unknown ones by number."""
        self.machine.mayUPnP = False
        for result, words in ((3, "no address itself"), (77, "result 77")):
            self.machine.begin(GATEWAY, LOCAL, self.now)
            self.hear(pmpAddress(), pmpMapping(result=result))
            self.assertIn(words, self.machine.failure)
        self.hear(pcpAnnounce())
        for result, words in ((12, "another NAT"), (99, "PCP fails with result 99")):
            self.machine.begin(GATEWAY, LOCAL, self.now)
            self.next()
            self.hear(pcpMapping(result=result))
            self.assertIn(words, self.machine.failure)

    def test_notPublic(self) -> None:
        """A port of an address that means nothing outside is given back."""
        self.machine.mayUPnP = False
        self.machine.take()
        for address in ("100.64.3.4", "127.0.0.1", "0.0.0.0", "169.254.1.1"):
            self.machine.begin(GATEWAY, LOCAL, self.now)
            self.machine.take()
            self.hear(pmpAddress(address), pmpMapping())
            self.assertIsNone(self.machine.mapping)
            self.assertIn(f"its own address {address}", self.machine.failure)
            self.assertEqual(self.machine.take(), [hexa("00010000a2a9000000000000")])

    # -- keeping -------------------------------------------------------------------

    def test_renew(self) -> None:
        """At half of its life a mapping is renewed, for the same port."""
        self.hear(pmpAddress(), pmpMapping())
        self.machine.take()
        waited = 0.0
        while not any(d[1] == 1 for d in self.machine.take()):
            waited += self.next()
        self.assertEqual(waited, 3600.0)
        self.hear(pmpAddress(epoch=3700), pmpMapping(port=50001, epoch=3700))
        self.assertEqual(self.machine.mapping.address.port, 50001)
        self.assertEqual(self.machine.mapping.expires, self.now + 7200)

    def test_renewalNames(self) -> None:
        """A renewal asks for the port that there is, and for no PCP."""
        self.hear(pmpAddress(), pmpMapping())
        self.machine.take()
        self.machine.begin(GATEWAY, LOCAL, self.now)
        self.assertEqual(
            self.machine.take(), [ASK_ADDRESS, hexa("00010000a2a9c35000001c20")]
        )
        self.assertEqual(self.machine.mapping.address, OUTSIDE)

    def test_renewalUnanswered(self) -> None:
        """A mapping whose renewal fails holds until its end, and no longer."""
        self.machine.mayUPnP = False
        self.hear(pmpAddress(), pmpMapping(lifetime=200))
        expires = self.machine.mapping.expires
        while self.machine.mapping is not None:
            self.next()
            self.assertLessEqual(self.now, expires)
        self.assertEqual(self.now, expires)
        self.assertGreater(self.machine.counters.failed, 1)
        self.assertLess(self.machine.counters.failed, 10)

    def test_shortLifetime(self) -> None:
        """A gateway that grants seconds is not asked all the time."""
        self.hear(pmpAddress(), pmpMapping(lifetime=2))
        self.machine.take()
        waited = self.next()
        self.assertEqual(waited, 2)
        self.assertIsNone(self.machine.mapping)
        self.assertEqual(self.machine.take(), [])
        self.assertEqual(waited + self.next(), LEAST_RENEWAL)
        self.assertEqual(self.machine.take()[0], ASK_ADDRESS)

    def test_longLifetime(self) -> None:
        """What holds for ever is looked after once a day at least."""
        self.giveUp()
        self.machine.upnpMapped(OUTSIDE, float("inf"), self.now)
        self.assertEqual(self.next(), LONGEST_LIFETIME / 2)
        self.assertEqual(self.machine.takeUPnP()[-1], MapByUPnP(LOCAL, 50000))

    def test_upnpRenewalFails(self) -> None:
        """When UPnP has gone, the other protocols get their chance again."""
        self.giveUp()
        self.machine.takeUPnP()
        self.machine.upnpMapped(OUTSIDE, 7200.0, self.now)
        self.next()
        self.machine.takeUPnP()
        self.machine.take()
        self.machine.upnpFailed("gone", False, self.now)
        self.assertIsNone(self.machine.mapping)
        self.assertEqual(self.machine.take(), [ASK_ADDRESS, ASK_PORT, ANNOUNCE])

    def test_check(self) -> None:
        """Now and then the gateway is asked whether it still remembers."""
        self.hear(pmpAddress(), pmpMapping())
        self.machine.take()
        self.assertEqual(self.next(), CHECK_EVERY)
        self.assertEqual(self.machine.take(), [ASK_ADDRESS])
        self.hear(pmpAddress(epoch=700))
        self.assertEqual(self.machine.take(), [])
        self.assertEqual(self.machine.counters.forgotten, 0)

    def test_epoch(self) -> None:
        """A gateway that began to count anew has forgotten: map anew."""
        self.hear(pmpAddress(), pmpMapping())
        self.next()
        self.machine.take()
        self.hear(pmpAddress(epoch=3))
        self.assertEqual(self.machine.counters.forgotten, 1)
        self.assertEqual(
            self.machine.take(), [ASK_ADDRESS, hexa("00010000a2a9c35000001c20")]
        )
        self.assertEqual(self.machine.mapping.address, OUTSIDE)

    def test_epochPCP(self) -> None:
        """The same in PCP, with the same nonce."""
        self.test_pcp()
        self.next()
        self.assertEqual(self.machine.take(), [ANNOUNCE])
        self.hear(pcpAnnounce(epoch=3))
        renewal = self.machine.take()
        self.assertEqual([r[24:36] for r in renewal], [NONCE])

    def test_slowClock(self) -> None:
        """A clock that is an eighth slow is no reboot (RFC 6886, 3.6)."""
        self.hear(pmpAddress(), pmpMapping())
        self.next()
        self.hear(pmpAddress(epoch=100 + int(CHECK_EVERY * 7 / 8)))
        self.assertEqual(self.machine.counters.forgotten, 0)

    def test_otherAddress(self) -> None:
        """The provider gives the gateway another address."""
        self.hear(pmpAddress(), pmpMapping())
        self.next()
        self.machine.take()
        self.hear(pmpAddress("203.0.113.77", epoch=700))
        self.hear(pmpAddress("203.0.113.77", epoch=700), pmpMapping(epoch=700))
        self.assertEqual(
            self.machine.mapping.address, AddrPort.parse("203.0.113.77:50000")
        )

    # -- beginning and ending ------------------------------------------------------

    def test_end(self) -> None:
        """At the end the port is given back."""
        self.hear(pmpAddress(), pmpMapping())
        self.machine.take()
        self.machine.end()
        self.assertEqual(self.machine.take(), [hexa("00010000a2a9000000000000")])
        self.assertIsNone(self.machine.mapping)
        self.assertIsNone(self.machine.deadline())

    def test_endPCP(self) -> None:
        """PCP deletes by the nonce that it mapped with."""
        self.test_pcp()
        self.machine.end()
        (deletion,) = self.machine.take()
        self.assertEqual(deletion[4:8], bytes(4))
        self.assertEqual(deletion[24:36], NONCE)

    def test_endUPnP(self) -> None:
        """UPnP deletes by the external port."""
        self.giveUp()
        self.machine.upnpMapped(OUTSIDE, 7200.0, self.now)
        self.machine.takeUPnP()
        self.machine.end()
        self.assertEqual(self.machine.takeUPnP(), [UnmapByUPnP(50000)])

    def test_endWithout(self) -> None:
        """Nothing was got, nothing is given back."""
        self.machine.take()
        self.machine.end()
        self.assertEqual(self.machine.take(), [])
        self.hear(pmpAddress(), pmpMapping())
        self.assertIsNone(self.machine.mapping)

    def test_otherPort(self) -> None:
        """With another port of ours the former mapping is given back."""
        self.hear(pmpAddress(), pmpMapping())
        self.machine.take()
        self.machine.begin(GATEWAY, 5000, self.now)
        self.assertIsNone(self.machine.mapping)
        self.assertEqual(self.machine.take()[0], hexa("00010000a2a9000000000000"))
        self.hear(pmpAddress(), pmpMapping(internal=LOCAL))
        self.assertIsNone(self.machine.mapping)
        self.hear(pmpMapping(internal=5000))
        self.assertEqual(self.machine.mapping.localPort, 5000)

    def test_otherGateway(self) -> None:
        """In another network nothing is left of the former one."""
        self.hear(pcpAnnounce(), pmpAddress(), pmpMapping())
        self.machine.take()
        self.machine.begin(OTHER, LOCAL, self.now)
        self.assertEqual(self.machine.take(), [ASK_ADDRESS, ASK_PORT, ANNOUNCE])
        self.assertEqual(self.machine.services(self.now), set())
        self.hear(pmpAddress(), pmpMapping())
        self.assertIsNone(self.machine.mapping)
        self.assertEqual(self.machine.counters.droppedForeign, 2)

    def test_noGateway(self) -> None:
        """Without a gateway there is nothing to do, and a reason."""
        self.machine.noGateway("there is none")
        self.assertEqual(self.machine.failure, "there is none")
        self.assertIsNone(self.machine.deadline())
        self.machine.check(self.now)
        self.assertEqual(self.machine.take()[3:], [])

    def test_services(self) -> None:
        """What was seen counts for a while."""
        self.hear(pcpAnnounce(), pmpAddress())
        self.assertEqual(self.machine.services(self.now), {Service.PMP, Service.PCP})
        self.assertEqual(self.machine.services(self.now + SEEN_FOR), set())

    # -- bad input -----------------------------------------------------------------

    def test_foreign(self) -> None:
        """Only the gateway's own port is believed."""
        for source in ("192.168.1.1:5350", "192.168.1.9:5351"):
            self.hear(pmpAddress(), pmpMapping(), source=AddrPort.parse(source))
        self.assertIsNone(self.machine.mapping)
        self.assertEqual(self.machine.counters.droppedForeign, 4)

    def test_stray(self) -> None:
        """Answers to what nobody asked have no effect."""
        self.hear(pcpMapping(), pmpMapping(internal=1), pmpMapping(lifetime=0))
        self.assertEqual(self.machine.counters.droppedStray, 3)
        self.hear(pmpAddress(), pmpMapping())
        self.hear(pmpMapping(port=666), pcpMapping(port=666))
        self.assertEqual(self.machine.mapping.address, OUTSIDE)
        self.machine.upnpMapped(AddrPort.parse("9.9.9.9:9"), 1.0, self.now)
        self.machine.upnpFailed("late", False, self.now)
        self.assertEqual(self.machine.mapping.address, OUTSIDE)

    def test_wrongNonce(self) -> None:
        """PCP answers count with our nonce only."""
        self.hear(pcpAnnounce())
        self.next()
        self.hear(pcpMapping(nonce=b"x" * 12))
        self.assertIsNone(self.machine.mapping)

    @given(st.lists(st.binary(max_size=70), max_size=8))
    def test_anything(self, datagrams: list[bytes]) -> None:
        """Whatever comes, nothing fails, and what was there stays."""
        self.hear(*datagrams)
        self.assertFalse(self.machine.counters.granted)
