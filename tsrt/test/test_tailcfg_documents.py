"""
Tests of the documents of the control protocol.

The texts are those that servers and clients of others send, written by hand.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from tsrt import tailcfg
from tsrt.tailcfg import (
    UNSET,
    DERPMap,
    DNSConfig,
    FilterRule,
    Hostinfo,
    MapRequest,
    MapResponse,
    NetInfo,
    PeerChange,
    PingRequest,
    PingResponse,
    RegisterAuth,
    RegisterRequest,
    RegisterResponse,
    Service,
    WireNode,
    decode,
    decodeMapResponse,
    encode,
)
from tsrt.tailcfg.naming import jsonName
from tsrt.test.netmapworld import there

FIRST_RESPONSE = b"""
{"Node":{"ID":1,"StableID":"nDEMO1","Name":"demo.tail.ts.net.","User":1,
  "Key":"nodekey:01","KeyExpiry":"0001-01-01T00:00:00Z",
  "Machine":"mkey:02","DiscoKey":"discokey:03",
  "Addresses":["100.64.0.1/32","fd7a:115c:a1e0::1/128"],
  "AllowedIPs":["100.64.0.1/32","fd7a:115c:a1e0::1/128"],
  "HomeDERP":900,"DERP":"127.3.3.40:900",
  "Hostinfo":{"OS":"linux","Hostname":"demo"},
  "Created":"2026-01-01T00:00:00Z","Cap":145,"Online":true,
  "MachineAuthorized":true,
  "CapMap":{"https://tailscale.com/cap/file-sharing":null}},
 "DERPMap":{"Regions":{"900":{"RegionID":900,"RegionCode":"local",
   "RegionName":"Local","Nodes":[{"Name":"900a","RegionID":900,
   "HostName":"127.0.0.1","IPv4":"127.0.0.1","IPv6":"none","STUNPort":3478,
   "DERPPort":8443,"InsecureForTests":true}]}},"omitDefaultRegions":true},
 "Peers":[{"ID":2,"StableID":"nDEMO2","Name":"peer.tail.ts.net.","User":1,
   "Key":"nodekey:04","DiscoKey":"discokey:05","Addresses":["100.64.0.2/32"],
   "AllowedIPs":["100.64.0.2/32"],"Endpoints":["192.0.2.8:41641"],
   "HomeDERP":900,"Hostinfo":{"Hostname":"peer","OS":"linux",
   "Services":[{"Proto":"peerapi4","Port":40000}]},"Cap":145,"Online":true,
   "MachineAuthorized":true,"SomethingNew":{"Deep":[1,2,{"x":null}]}}],
 "DNSConfig":{"Proxied":true,"Domains":["tail.ts.net"],"Routes":{}},
 "Domain":"example.com","CollectServices":false,
 "PacketFilters":{"base":[{"SrcIPs":["*"],"DstPorts":[{"IP":"*",
   "Ports":{"First":0,"Last":65535}}]}]},
 "UserProfiles":[{"ID":1,"LoginName":"demo@example.com","DisplayName":"Demo"}],
 "SSHPolicy":{"rules":[]},"ControlTime":"2026-01-01T00:00:00Z",
 "Debug":{"DisableLogTail":true}}
"""

# The names that the protocol has for what we name otherwise in some way.
NAMES: dict[type[Struct], str] = {
    WireNode: (
        "ID StableID Name User Sharer Key KeyExpiry KeySignature Machine DiscoKey "
        "Addresses AllowedIPs Endpoints DERP HomeDERP Hostinfo Created Cap Tags "
        "PrimaryRoutes LastSeen Online MachineAuthorized Capabilities CapMap "
        "UnsignedPeerAPIOnly ComputedName ComputedNameWithHost DataPlaneAuditLogID "
        "Expired SelfNodeV4MasqAddrForThisPeer SelfNodeV6MasqAddrForThisPeer "
        "IsWireGuardOnly IsJailed ExitNodeDNSResolvers"
    ),
    PeerChange: (
        "NodeID DERPRegion Cap CapMap Endpoints Key KeySignature DiscoKey Online "
        "LastSeen KeyExpiry"
    ),
    MapResponse: (
        "MapSessionHandle Seq KeepAlive PingRequest PopBrowserURL Node DERPMap Peers "
        "PeersChanged PeersRemoved PeersChangedPatch PeerSeenChange OnlineChange "
        "DNSConfig Domain CollectServices PacketFilter PacketFilters UserProfiles "
        "Health DisplayMessages SSHPolicy ControlTime TKAInfo "
        "DomainDataPlaneAuditLogID Debug ControlDialPlan ClientVersion "
        "DefaultAutoUpdate"
    ),
    MapRequest: (
        "Version Compress KeepAlive NodeKey DiscoKey Stream Hostinfo "
        "MapSessionHandle MapSessionSeq Endpoints EndpointTypes TKAHead ReadOnly "
        "OmitPeers DebugFlags ConnectionHandleForTest"
    ),
    RegisterRequest: (
        "Version NodeKey OldNodeKey NLKey Auth Expiry Followup Hostinfo Ephemeral "
        "NodeKeySignature SignatureType Timestamp DeviceCert Signature Tailnet"
    ),
    RegisterResponse: (
        "User Login NodeKeyExpired MachineAuthorized AuthURL NodeKeySignature Error"
    ),
    RegisterAuth: "AuthKey Oauth2Token",
    Hostinfo: (
        "IPNVersion FrontendLogID BackendLogID OS OSVersion Container Env Distro "
        "DistroVersion DistroCodeName App Desktop Package DeviceModel "
        "PushDeviceToken Hostname ShieldsUp ShareeNode NoLogsNoSupport RemoteConfig "
        "WireIngress IngressEnabled AllowsUpdate Machine GoArch GoArchVar GoVersion "
        "RoutableIPs RequestTags WoLMACs Services NetInfo sshHostKeys Cloud "
        "Userspace UserspaceRouter AppConnector ServicesHash PeerRelay ExitNodeID "
        "Location TPM StateEncrypted"
    ),
    NetInfo: (
        "MappingVariesByDestIP WorkingIPv6 OSHasIPv6 WorkingUDP WorkingICMPv4 "
        "HavePortMap UPnP PMP PCP PreferredDERP LinkType DERPLatency FirewallMode"
    ),
    Service: "Proto Port Description",
    tailcfg.Location: ("Country CountryCode City CityCode Latitude Longitude Priority"),
    DERPMap: "HomeParams Regions omitDefaultRegions",
    tailcfg.DERPHomeParams: "RegionScore",
    tailcfg.DERPRegion: (
        "RegionID RegionCode RegionName Latitude Longitude Avoid NoMeasureNoHome Nodes"
    ),
    tailcfg.DERPNode: (
        "Name RegionID HostName CertName IPv4 IPv6 STUNPort STUNOnly DERPPort "
        "InsecureForTests STUNTestIP CanPort80"
    ),
    DNSConfig: (
        "Resolvers Routes FallbackResolvers Domains Proxied Nameservers CertDomains "
        "ExtraRecords ExitNodeFilteredSet TempCorpIssue13969"
    ),
    tailcfg.DNSRecord: "Name Type Value",
    tailcfg.Resolver: "Addr BootstrapResolution UseWithExitNode",
    FilterRule: "SrcIPs SrcBits DstPorts IPProto CapGrant",
    tailcfg.NetPortRange: "IP Ports Bits",
    tailcfg.PortRange: "First Last",
    tailcfg.CapGrant: "Dsts Caps CapMap",
    tailcfg.UserProfile: "ID LoginName DisplayName ProfilePicURL Groups",
    tailcfg.User: "ID DisplayName ProfilePicURL Created",
    tailcfg.Login: "ID Provider LoginName DisplayName ProfilePicURL",
    PingRequest: "URL URLIsNoise Log Types IP Payload",
    PingResponse: (
        "Type IP NodeIP NodeName Err LatencySeconds Endpoint PeerRelay DERPRegionID "
        "DERPRegionCode PeerAPIPort IsLocalIP"
    ),
    tailcfg.ControlDialPlan: "Candidates",
    tailcfg.ControlDialCandidate: (
        "IP ACEHost DialStartDelaySec DialTimeoutSec Priority"
    ),
    tailcfg.ClientVersion: (
        "RunningLatest LatestVersion UrgentSecurityUpdate Notify NotifyURL NotifyText"
    ),
    tailcfg.DisplayMessage: "Title Text Severity ImpactsConnectivity PrimaryAction",
    tailcfg.MessageAction: "URL Label",
    tailcfg.Debug: "SleepSeconds DisableLogTail Exit",
    tailcfg.TKAInfo: "Head Disabled",
    tailcfg.SSHPolicy: "rules",
}


class NamingTests(SynchronousTestCase):
    """Attributes stand for the right members of documents."""

    def test_names(self) -> None:
        """Every document has exactly the members that the protocol names."""
        for kind, names in NAMES.items():
            self.assertEqual(
                sorted(kind.__struct_encode_fields__), sorted(names.split()), kind
            )

    def test_allDocumentsAreListed(self) -> None:
        """No document of the package is missing from this test."""
        kinds = {
            value
            for value in vars(tailcfg).values()
            if hasattr(value, "__struct_encode_fields__")
        }
        self.assertEqual(kinds - NAMES.keys(), set())

    def test_jsonName(self) -> None:
        """Leading abbreviations are written in capitals, other words begin so."""
        for attribute, name in (
            ("nodeKey", "NodeKey"),
            ("derpMap", "DERPMap"),
            ("stableID", "StableID"),
            ("id", "ID"),
            ("upnp", "UPnP"),
            ("ipnVersion", "IPNVersion"),
            ("ipProto", "IPProto"),
            ("ipsOfIt", "IPsOfIt"),
        ):
            self.assertEqual(jsonName(attribute), name)


class ReadingTests(SynchronousTestCase):
    """Documents as servers and clients write them."""

    def test_firstResponse(self) -> None:
        """A complete first response is read; what is unknown is ignored."""
        response = decodeMapResponse(FIRST_RESPONSE)
        self.assertEqual(response.rejectedPeers, ())
        self.assertEqual(there(response.node).name, "demo.tail.ts.net.")
        self.assertEqual(there(response.node).homeDERP, 900)
        self.assertEqual(
            there(response.node).capMap,
            {"https://tailscale.com/cap/file-sharing": None},
        )
        region = there(there(there(response.derpMap).regions)[900])
        self.assertEqual(there(region.nodes)[0].derpPort, 8443)
        self.assertTrue(there(region.nodes)[0].insecureForTests)
        self.assertTrue(there(response.derpMap).omitDefaultRegions)
        (peer,) = there(response.peers)
        self.assertEqual(peer.id, 2)
        self.assertEqual(there(there(peer.hostinfo).services)[0].port, 40000)
        self.assertEqual(there(response.dnsConfig).routes, {})
        (rule,) = there(there(response.packetFilters)["base"])
        self.assertEqual(there(rule.dstPorts)[0].ports.last, 65535)
        self.assertEqual(there(response.userProfiles)[0].loginName, "demo@example.com")
        self.assertEqual(there(response.sshPolicy).rules, [])
        self.assertEqual(response.controlTime, datetime(2026, 1, 1, tzinfo=UTC))
        self.assertTrue(there(response.debug).disableLogTail)

    def test_absentNullAndEmpty(self) -> None:
        """What is absent, null and empty are three things."""
        absent = decodeMapResponse(b"{}")
        null = decodeMapResponse(b'{"PacketFilter":null,"Peers":null,"Health":null}')
        empty = decodeMapResponse(b'{"PacketFilter":[],"Peers":[],"Health":[]}')
        for name in ("packetFilter", "peers", "health"):
            self.assertIs(getattr(absent, name), UNSET)
            self.assertIsNone(getattr(null, name))
            self.assertEqual(getattr(empty, name), [])

    def test_T_nullLists(self) -> None:
        """Every list and every map of a response may be null."""
        null = decodeMapResponse(
            b"""{"Node":{"ID":1,"Addresses":null,"AllowedIPs":null,"Endpoints":null,
            "Tags":null,"PrimaryRoutes":null,"Capabilities":null,"CapMap":null,
            "KeySignature":null,"Hostinfo":{"RoutableIPs":null,"RequestTags":null,
            "Services":null,"sshHostKeys":null,"WoLMACs":null,"NetInfo":{
            "DERPLatency":null}},"ExitNodeDNSResolvers":null},
            "DERPMap":{"Regions":{"1":{"RegionID":1,"Nodes":null},"2":null},
            "HomeParams":{"RegionScore":null}},
            "Peers":null,"PeersChanged":null,"PeersRemoved":null,
            "PeersChangedPatch":null,"PeerSeenChange":null,"OnlineChange":null,
            "DNSConfig":{"Resolvers":null,"Routes":{"a.example":null},
            "FallbackResolvers":null,"Domains":null,"Nameservers":null,
            "CertDomains":null,"ExtraRecords":null,"ExitNodeFilteredSet":null},
            "PacketFilter":[{"SrcIPs":null,"SrcBits":null,"DstPorts":null,
            "IPProto":null,"CapGrant":null},{"CapGrant":[{"Dsts":null,"Caps":null,
            "CapMap":null},{"CapMap":{"x":null}}]}],
            "PacketFilters":{"*":null},"UserProfiles":null,"Health":null,
            "DisplayMessages":{"*":null},"SSHPolicy":{"rules":null},
            "ControlDialPlan":{"Candidates":null}}"""
        )
        self.assertEqual(null.rejectedPeers, ())
        self.assertIsNone(there(null.node).allowedIPs)
        self.assertEqual(there(there(null.derpMap).regions)[2], None)
        self.assertEqual(there(null.dnsConfig).routes, {"a.example": None})
        self.assertEqual(null.packetFilters, {"*": None})
        mayBeNull = set(MapResponse.__struct_encode_fields__) - {
            "MapSessionHandle",
            "Seq",
            "KeepAlive",
            "PopBrowserURL",
            "Domain",
            "DomainDataPlaneAuditLogID",
        }
        everything = dict.fromkeys(mayBeNull)
        response = decodeMapResponse(json.dumps(everything).encode())
        self.assertEqual(response.rejectedPeers, ())
        self.assertIsNone(response.peers)

    def test_numbersAsMapKeys(self) -> None:
        """Ids that are keys of maps are strings in documents, numbers here."""
        response = decodeMapResponse(
            b'{"OnlineChange":{"2":false},"PeerSeenChange":{"9007199254740993":true}}'
        )
        self.assertEqual(response.onlineChange, {2: False})
        self.assertEqual(response.peerSeenChange, {9007199254740993: True})

    def test_capMapStaysRaw(self) -> None:
        """Values of capabilities keep the text that they came with."""
        response = decodeMapResponse(
            b'{"Node":{"CapMap":{"a":[1.50,{"b":  "c"}],"d":[],"e":null}}}'
        )
        capMap = there(there(response.node).capMap)
        self.assertEqual(
            [bytes(v) for v in there(capMap["a"])], [b"1.50", b'{"b":  "c"}']
        )
        self.assertEqual(capMap["d"], [])
        self.assertIsNone(capMap["e"])

    def test_destinationWithoutPorts(self) -> None:
        """Where the ports of a destination are absent they are zero, not all."""
        rule = decode(FilterRule, b'{"DstPorts":[{"IP":"*"}]}')
        ports = there(rule.dstPorts)[0].ports
        self.assertEqual((ports.first, ports.last), (0, 0))

    def test_registerReply(self) -> None:
        """A reply to a registration is read; what is absent is nothing."""
        reply = decode(
            RegisterResponse,
            b'{"User":{"ID":1,"DisplayName":"Demo"},"Login":{"ID":1,'
            b'"Provider":"local","LoginName":"demo@example.com"},'
            b'"MachineAuthorized":true,"NodeKeySignature":null}',
        )
        self.assertEqual(reply.login.loginName, "demo@example.com")
        self.assertTrue(reply.machineAuthorized)
        self.assertEqual((reply.authURL, reply.error), ("", ""))

    def test_registerRequest(self) -> None:
        """A request to register, as official clients write it, is read."""
        request = decode(
            RegisterRequest,
            b'{"Version":145,"NodeKey":"nodekey:01","OldNodeKey":"nodekey:00",'
            b'"NLKey":"nlpub:02","Auth":{"AuthKey":"tskey-auth-demo"},'
            b'"Expiry":"0001-01-01T00:00:00Z","Followup":"",'
            b'"Hostinfo":{"IPNVersion":"1.103.0","BackendLogID":"ab","OS":"linux",'
            b'"Hostname":"demo","GoArch":"amd64"},"NodeKeySignature":null}',
        )
        self.assertEqual(there(request.auth).authKey, "tskey-auth-demo")
        self.assertIsNone(tailcfg.present(request.expiry))
        self.assertEqual(there(request.hostinfo).backendLogID, "ab")

    def test_pingRequest(self) -> None:
        """The payload of a ping request is bytes."""
        ping = decode(
            PingRequest, b'{"URL":"https://c/1","Types":"c2n","Payload":"R0VUIC8="}'
        )
        self.assertEqual(ping.payload, b"GET /")


class WritingTests(SynchronousTestCase):
    """Documents as we write them."""

    def assertWritten(self, value: object, expected: object) -> None:
        """C{value} is written as the JSON of C{expected}."""
        self.assertEqual(json.loads(encode(value)), expected)

    def test_mapRequest(self) -> None:
        """A long poll has only what is meant to be in it."""
        self.assertWritten(
            MapRequest(
                version=130,
                compress="zstd",
                keepAlive=True,
                nodeKey="nodekey:01",
                discoKey="discokey:02",
                stream=True,
                hostinfo=Hostinfo(os="linux", netInfo=NetInfo(preferredDERP=1)),
                endpoints=["192.0.2.7:41641"],
                endpointTypes=[1],
            ),
            {
                "Version": 130,
                "Compress": "zstd",
                "KeepAlive": True,
                "NodeKey": "nodekey:01",
                "DiscoKey": "discokey:02",
                "Stream": True,
                "Hostinfo": {"OS": "linux", "NetInfo": {"PreferredDERP": 1}},
                "Endpoints": ["192.0.2.7:41641"],
                "EndpointTypes": [1],
            },
        )

    def test_registerRequest(self) -> None:
        """A registration without a key spells out what has no value."""
        self.assertWritten(
            RegisterRequest(version=130, nodeKey="nodekey:01", nlKey="nlpub:02"),
            {
                "Version": 130,
                "NodeKey": "nodekey:01",
                "OldNodeKey": "",
                "NLKey": "nlpub:02",
                "Expiry": "0001-01-01T00:00:00Z",
                "Followup": "",
                "Hostinfo": None,
                "NodeKeySignature": None,
            },
        )

    def test_expiryInThePast(self) -> None:
        """A request to expire a key writes the time as official clients do."""
        request = RegisterRequest(expiry=datetime.fromtimestamp(123, UTC))
        self.assertEqual(json.loads(encode(request))["Expiry"], "1970-01-01T00:02:03Z")

    def test_absentNullAndEmpty(self) -> None:
        """In responses, too, absent, null and empty are three things."""
        self.assertWritten(MapResponse(), {})
        self.assertWritten(
            MapResponse(packetFilter=[], health=None),
            {"PacketFilter": [], "Health": None},
        )
        self.assertWritten(MapResponse(keepAlive=True), {"KeepAlive": True})

    def test_emptyAllowedIPs(self) -> None:
        """A node without any allowed addresses says so."""
        self.assertWritten(WireNode(id=2, allowedIPs=[]), {"ID": 2, "AllowedIPs": []})
        self.assertWritten(WireNode(id=2), {"ID": 2})

    def test_patch(self) -> None:
        """A patch has only what changed."""
        self.assertWritten(
            PeerChange(
                nodeID=2, online=False, lastSeen=datetime(2026, 1, 1, 0, 5, tzinfo=UTC)
            ),
            {"NodeID": 2, "Online": False, "LastSeen": "2026-01-01T00:05:00Z"},
        )

    def test_rejectedPeersAreNotPartOfIt(self) -> None:
        """What had to be left out on reading is not written."""
        response = decodeMapResponse(b'{"Peers":[5],"Domain":"d.example"}')
        self.assertEqual(len(response.rejectedPeers), 1)
        self.assertWritten(response, {"Peers": [], "Domain": "d.example"})

    def test_noSecretsInRepr(self) -> None:
        """The auth key of a request is in its JSON, never in its repr."""
        request = RegisterRequest(auth=RegisterAuth(authKey="tskey-auth-secret"))
        self.assertIn(b"tskey-auth-secret", encode(request))
        self.assertNotIn("secret", repr(request))
