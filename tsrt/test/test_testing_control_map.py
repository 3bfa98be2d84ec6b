"""Tests for the maps that the embedded control server sends."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import NotRunning, UnknownPeer
from tsrt.keys import DiscoKey
from tsrt.tailcfg import (
    ControlDialCandidate,
    ControlDialPlan,
    DERPHomeParams,
    DERPMap,
    DERPNode,
    DERPRegion,
    MapResponse,
)
from tsrt.test.rawcontrol import Harness, RawNode
from tsrt.testing.control import ControlConfig, DNSSettings, RegistrationOptions

DERP_MAP = DERPMap(
    regions={
        900: DERPRegion(
            regionID=900,
            regionCode="local",
            nodes=[DERPNode(name="900a", regionID=900, hostName="127.0.0.1")],
        )
    },
    omitDefaultRegions=True,
)


class FirstFrameTests(SynchronousTestCase):
    """Tests for the complete first frame."""

    def test_contents(self):
        """The first frame has everything that clients insist on."""
        harness = Harness(ControlConfig(derpMap=DERP_MAP))
        harness.node("first")
        frame = harness.node("second").first
        own = frame["Node"]
        self.assertEqual(2, own["ID"])
        self.assertEqual("second.tailnet.test.", own["Name"])
        self.assertEqual(["100.64.0.2/32", "fd7a:115c:a1e0::2/128"], own["Addresses"])
        self.assertEqual(own["Addresses"], own["AllowedIPs"])
        self.assertTrue(own["MachineAuthorized"])
        self.assertIn("https://tailscale.com/cap/file-sharing", own["CapMap"])
        [peer] = frame["Peers"]
        self.assertEqual(1, peer["ID"])
        self.assertTrue(peer["Online"])
        self.assertEqual(145, peer["Cap"])
        self.assertEqual(
            [{"Proto": "peerapi4", "Port": 4000}], peer["Hostinfo"]["Services"]
        )
        self.assertNotIn("BackendLogID", peer["Hostinfo"])
        self.assertIn("BackendLogID", own["Hostinfo"])
        self.assertEqual("local", frame["DERPMap"]["Regions"]["900"]["RegionCode"])
        self.assertTrue(frame["DERPMap"]["omitDefaultRegions"])
        self.assertEqual(["tailnet.test"], frame["DNSConfig"]["Domains"])
        self.assertTrue(frame["DNSConfig"]["Proxied"])
        self.assertEqual("tailnet.test", frame["Domain"])
        self.assertIs(False, frame["CollectServices"])
        self.assertEqual(
            [
                {
                    "SrcIPs": ["*"],
                    "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}],
                }
            ],
            frame["PacketFilters"]["base"],
        )
        self.assertEqual({"rules": []}, frame["SSHPolicy"])
        self.assertEqual("2026-01-01T00:00:00Z", frame["ControlTime"])
        self.assertEqual({"DisableLogTail": True}, frame["Debug"])

    def test_alone(self):
        """Without relays and peers the map still says so explicitly."""
        frame = Harness().node("alone").first
        self.assertEqual({"Regions": {}}, frame["DERPMap"])
        self.assertEqual([], frame["Peers"])
        self.assertIsNotNone(frame["DNSConfig"])

    def test_profiles(self):
        """There is a profile for every user that is mentioned."""
        harness = Harness(ControlConfig(users=("alice", "bob")))
        for user, tags in (("alice", ()), ("bob", ()), ("bob", ("tag:x",))):
            harness.node(
                "n", harness.server.createAuthKey(user, tags=tags).text, listen=False
            )
        frame = harness.node("last").first
        mentioned = {frame["Node"]["User"], *(p["User"] for p in frame["Peers"])}
        profiles = {p["ID"]: p["LoginName"] for p in frame["UserProfiles"]}
        self.assertEqual(mentioned, set(profiles))
        self.assertIn("tagged-devices", profiles.values())

    def test_plainAndCompressed(self):
        """Frames are compressed when the node asks for it."""
        harness = Harness()
        node = harness.node("n", listen=False)
        self.assertEqual("n.tailnet.test.", node.listen()["Node"]["Name"])
        plain = node.poll.body
        self.assertEqual(b"{", plain[4:5])
        first = node.listen(Compress="zstd")
        self.assertEqual("n.tailnet.test.", first["Node"]["Name"])
        self.assertEqual(b"\x28\xb5\x2f\xfd", node.poll.body[4:8])
        response = node.map(Compress="gzip")
        self.assertEqual(400, response.status)
        self.assertIn("'gzip' is not supported", response.text)

    def test_fullFetch(self):
        """Without a stream the map is one frame."""
        harness = Harness()
        harness.node("other")
        node = harness.node("n", listen=False)
        response = node.map()
        self.assertTrue(response.ended)
        [frame] = response.frames()
        self.assertEqual([1], [peer["ID"] for peer in frame["Peers"]])
        self.assertIsNone(node.record.online)

    def test_oldClient(self):
        """A client that knows no named filters gets the unnamed one."""
        harness = Harness()
        node = RawNode(harness, "old")
        node.version = 80
        node.register(harness.server.createAuthKey().text)
        frame = node.listen()
        self.assertNotIn("PacketFilters", frame)
        self.assertEqual(["*"], frame["PacketFilter"][0]["SrcIPs"])
        harness.server.setPolicy('{"acls": []}')
        harness.settle()
        self.assertEqual([], node.heard()[0]["PacketFilter"])

    def test_addressFamilies(self):
        """Nodes have addresses of the configured families only."""
        for ipv4, ipv6, expected in (
            (True, False, ["100.64.0.1/32"]),
            (False, True, ["fd7a:115c:a1e0::1/128"]),
        ):
            harness = Harness(ControlConfig(ipv4=ipv4, ipv6=ipv6))
            self.assertEqual(expected, harness.node("n").first["Node"]["Addresses"])

    def test_attributes(self):
        """Attributes for all, for some and for one node are joined."""
        policy = {"nodeAttrs": [{"target": ["user@"], "attr": ["funnel"]}]}
        config = ControlConfig(
            attributes={"everybody": (1,)}, policy=json.dumps(policy)
        )
        harness = Harness(config)
        node, peer = harness.node("n"), harness.node("p")
        harness.server.setAttributes("n", {"own": ["x", {"y": None}]})
        harness.settle()
        own = node.heard()[-1]["Node"]["CapMap"]
        self.assertEqual([1], own["everybody"])
        self.assertIsNone(own["funnel"])
        self.assertEqual(["x", {"y": None}], own["own"])
        [change] = peer.heard()[-1]["PeersChangedPatch"]
        self.assertEqual({"funnel": None, "own": ["x", {"y": None}]}, change["CapMap"])

    def test_admin(self):
        """Nodes of administrators are told that they are."""
        harness = Harness()
        harness.server.addUser("root", admin=True)
        key = harness.server.createAuthKey("root").text
        capabilities = harness.node("n", key).first["Node"]["CapMap"]
        self.assertIn("https://tailscale.com/cap/is-admin", capabilities)


class RequestTests(SynchronousTestCase):
    """Tests for who may ask for maps."""

    def setUp(self):
        """Start a server with one node."""
        self.harness = Harness()
        self.node = self.harness.node("n", listen=False)

    def test_refusals(self):
        """Requests for nodes that are not there, or not there, are refused."""
        other = RawNode(self.harness, "other")
        cases = [
            (self.node.map(Version=67), 400, "unsupported client version"),
            (self.node.map(NodeKey="x"), 400, "malformed node key"),
            (self.node.map(DiscoKey="x"), 400, "malformed disco key"),
            (other.map(), 404, "node not found"),
            (other.map(NodeKey=self.node.keyText), 401, "another machine"),
            (self.node.client.request("/machine/map", b"nonsense"), 400, "malformed"),
        ]
        for response, status, words in cases:
            self.assertEqual(status, response.status)
            self.assertIn(words, response.text)

    def test_deleted(self):
        """A deleted node's stream ends, and it is not found any more."""
        self.node.listen()
        self.harness.server.deleteNode("n")
        self.node.client.pump()
        self.assertTrue(self.node.poll.ended)
        self.assertEqual(404, self.node.map(Stream=True).status)
        self.assertRaises(UnknownPeer, self.harness.server.node, "n")


class LiteUpdateTests(SynchronousTestCase):
    """Tests for what nodes tell about themselves."""

    def setUp(self):
        """Start a server with two nodes that listen."""
        self.harness = Harness()
        self.node = self.harness.node("n")
        self.peer = self.harness.node("p")
        self.harness.quiet(self.node, self.peer)

    def heard(self):
        """The one frame that the peer heard."""
        self.harness.settle()
        [frame] = self.peer.heard()
        return frame

    def test_endpoints(self):
        """Endpoints reach the peers as a patch, and not the node's stream."""
        self.node.update(Endpoints=["192.0.2.1:41641"], EndpointTypes=[2])
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 1, "Endpoints": ["192.0.2.1:41641"]}]},
            self.heard(),
        )
        self.assertFalse(self.node.poll.ended)
        self.node.update(Endpoints=None)
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 1, "Endpoints": []}]}, self.heard()
        )

    def test_absentEndpoints(self):
        """What an update does not mention stays."""
        self.node.update(Endpoints=["192.0.2.1:1"])
        self.heard()
        self.node.update()
        self.harness.settle()
        self.assertEqual([], self.peer.heard())
        self.assertEqual(("192.0.2.1:1",), self.node.record.endpoints)

    def test_manyEndpoints(self):
        """Only so many endpoints are kept."""
        self.node.update(Endpoints=[f"192.0.2.1:{port}" for port in range(1000)])
        self.assertEqual(100, len(self.node.record.endpoints))

    def test_homeRegion(self):
        """The preferred relay becomes the home region."""
        self.node.hostinfo["NetInfo"] = {"PreferredDERP": 900}
        self.node.update()
        frame = self.heard()
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 1, "DERPRegion": 900}]}, frame
        )
        first = self.peer.listen()
        self.assertEqual(900, first["Peers"][0]["HomeDERP"])
        self.assertEqual("127.3.3.40:900", first["Peers"][0]["DERP"])
        # An update that does not say does not take it away.
        del self.node.hostinfo["NetInfo"]
        self.node.update()
        self.assertEqual(900, self.node.record.homeDERP)

    def test_discoKey(self):
        """A new disco key reaches the peers; a zero one changes nothing."""
        self.node.disco = DiscoKey.generate(self.node.random)
        text = self.node.disco.public().text()
        self.node.update()
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 1, "DiscoKey": text}]}, self.heard()
        )
        self.node.update(DiscoKey="discokey:" + "0" * 64)
        self.assertEqual(text, self.node.record.discoKey.text())

    def test_services(self):
        """What no patch can say is sent as a whole node."""
        self.node.hostinfo["Services"] = []
        self.node.update()
        frame = self.heard()
        [changed] = frame.pop("PeersChanged")
        self.assertEqual({}, frame)
        self.assertEqual(1, changed["ID"])
        self.assertEqual([], changed["Hostinfo"]["Services"])

    def test_hostname(self):
        """A new host name becomes the name, unless it was given one."""
        self.node.hostinfo["Hostname"] = "p"
        self.node.update()
        self.assertEqual("p-1.tailnet.test.", self.heard()["PeersChanged"][0]["Name"])
        self.node.update()
        self.assertEqual("p-1", self.node.record.name)
        self.harness.server.renameNode("p-1", "given")
        self.node.hostinfo["Hostname"] = "other"
        self.node.update()
        self.assertEqual("given", self.node.record.name)
        self.harness.server.renameNode("given", "")
        self.assertEqual("other", self.node.record.name)

    def test_readOnly(self):
        """A read-only request changes nothing."""
        self.node.update(Endpoints=["192.0.2.1:1"], ReadOnly=True)
        self.assertEqual((), self.node.record.endpoints)

    def test_malformedRoutes(self):
        """Malformed routes are left out; the rest counts."""
        self.node.hostinfo["RoutableIPs"] = ["10.0.0.0/8", "x", "10.0.0.0/99"]
        self.node.update()
        routes = self.node.record.advertisedRoutes
        self.assertEqual(["10.0.0.0/8"], [route.text() for route in routes])


class DeltaTests(SynchronousTestCase):
    """Tests for what streams are told of changes."""

    def setUp(self):
        """Start a server with two nodes that listen."""
        self.harness = Harness(ControlConfig(derpMap=DERP_MAP, users=("alice", "bob")))
        self.server = self.harness.server
        self.node = self.harness.node("n")
        self.peer = self.harness.node("p")
        self.harness.quiet(self.node, self.peer)

    def frames(self, node=None):
        """All frames that a node heard."""
        self.harness.settle()
        return (node or self.node).heard()

    def frame(self, node=None):
        """The one frame that a node heard."""
        frames = self.frames(node)
        self.assertEqual(1, len(frames), frames)
        return frames[0]

    def test_join(self):
        """A node that joins is told to the others, with its user's profile."""
        self.harness.node("x", self.server.createAuthKey("bob").text)
        frame = self.node.heard()[0]
        self.assertEqual([3], [peer["ID"] for peer in frame["PeersChanged"]])
        self.assertEqual(
            [{"ID": 2, "LoginName": "bob@tailnet.test", "DisplayName": "Bob"}],
            frame["UserProfiles"],
        )
        self.assertEqual({"PeersChanged", "UserProfiles"}, set(frame))
        self.harness.node("y", self.server.createAuthKey("bob").text)
        self.assertNotIn("UserProfiles", self.node.heard()[0])

    def test_leave(self):
        """A deleted node is removed."""
        self.server.deleteNode("p")
        self.assertEqual({"PeersRemoved": [2]}, self.frame())

    def test_batching(self):
        """Changes within a turn are told in one frame."""
        self.server.renameNode("p", "q")
        self.server.setAttributes("q", {"x": []})
        self.server.setHealth("sad")
        self.server.setDNS(DNSSettings(magicDNS=False))
        self.peer.update(Endpoints=["192.0.2.1:1"])
        frame = self.frame()
        self.assertEqual({"PeersChanged", "Health", "DNSConfig"}, set(frame))
        self.assertEqual(["192.0.2.1:1"], frame["PeersChanged"][0]["Endpoints"])

    def test_noChange(self):
        """What is the same is not told again."""
        self.server.setHealth()
        self.server.setDERPMap(DERP_MAP)
        self.server.setPolicy("")
        self.server.renameNode("p", "p")
        self.peer.update()
        self.assertEqual([], self.frames())

    def test_keyRotation(self):
        """A new node key reaches the peers as a patch."""
        old = self.peer.newKey()
        key = self.server.createAuthKey().text
        self.peer.register(key, OldNodeKey=old.public().text())
        change = self.frame()["PeersChangedPatch"][0]
        self.assertEqual({"NodeID": 2, "Key": self.peer.keyText}, change)

    def test_keyExpiry(self):
        """A coming end of a key is a patch; so is that it never ends."""
        self.server.setExpiry("p", self.harness.reactor.seconds() + 1767225600 + 60)
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 2, "KeyExpiry": "2026-01-01T00:01:00Z"}]},
            self.frame(),
        )
        self.server.setExpiry("p", None)
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 2, "KeyExpiry": "0001-01-01T00:00:00Z"}]},
            self.frame(),
        )
        self.harness.advance(100, step=30)
        self.assertNotIn("PeersChanged", [k for f in self.frames() for k in f])

    def test_keyEnds(self):
        """When a key ends, everybody is told at that moment."""
        self.server.setExpiry("p", self.harness.reactor.seconds() + 1767225600 + 10)
        self.frame(), self.frame(self.peer)
        self.harness.advance(9)
        self.assertEqual([], self.frames())
        self.harness.advance(1)
        self.assertTrue(self.frame()["PeersChanged"][0]["Expired"])
        own = self.frame(self.peer)
        self.assertTrue(own["Node"]["Expired"])
        self.assertEqual([1], own["PeersRemoved"])

    def test_expireAndRevive(self):
        """A node whose key was ended comes back when the end is put off."""
        self.server.expireNode("p")
        self.assertTrue(self.frame()["PeersChanged"][0]["Expired"])
        self.assertEqual([1], self.frame(self.peer)["PeersRemoved"])
        self.server.setExpiry("p", None)
        self.assertNotIn("Expired", self.frame()["PeersChanged"][0])
        self.assertEqual([1], [p["ID"] for p in self.frame(self.peer)["PeersChanged"]])

    def test_policy(self):
        """A new policy changes filters and who is seen, for those it touches."""
        self.server.setPolicy(
            '{"acls": [{"action": "accept", "src": ["n"], "dst": ["p:80"]}],'
            '"hosts": {"n": "100.64.0.1", "p": "100.64.0.2"}}'
        )
        # Both still see each other, but only one is to let packets in.
        self.assertEqual({"PacketFilters": {"base": []}}, self.frame())
        self.assertEqual(
            {
                "PacketFilters": {
                    "base": [
                        {
                            "SrcIPs": ["100.64.0.1"],
                            "DstPorts": [
                                {"IP": "100.64.0.2", "Ports": {"First": 80, "Last": 80}}
                            ],
                        }
                    ]
                }
            },
            self.frame(self.peer),
        )
        self.server.setPolicy('{"acls": []}')
        self.assertEqual({"PeersRemoved": [2]}, self.frame())
        self.assertEqual(
            {"PeersRemoved": [1], "PacketFilters": {"base": []}},
            self.frame(self.peer),
        )

    def test_capabilities(self):
        """Application grants reach the node as capability grants."""
        self.server.setPolicy(
            '{"grants": [{"src": ["*"], "dst": ["100.64.0.2"], "ip": ["icmp:*"],'
            '"app": {"example.com/cap/x": [{"a": 1}], "y": []}}]}'
        )
        self.assertEqual(
            [
                {
                    "SrcIPs": ["*"],
                    "DstPorts": [
                        {"IP": "100.64.0.2", "Ports": {"First": 0, "Last": 65535}}
                    ],
                    "IPProto": [1, 58],
                },
                {
                    "SrcIPs": ["*"],
                    "CapGrant": [
                        {
                            "Dsts": ["100.64.0.2/32"],
                            "CapMap": {"example.com/cap/x": [{"a": 1}], "y": None},
                        }
                    ],
                },
            ],
            self.frame(self.peer)["PacketFilters"]["base"],
        )

    def test_derpMap(self):
        """A new relay map replaces the old one whole."""
        scored = DERPMap(regions={}, homeParams=DERPHomeParams(regionScore={900: 0.5}))
        self.server.setDERPMap(scored)
        self.assertEqual(
            {"Regions": {}, "HomeParams": {"RegionScore": {"900": 0.5}}},
            self.frame()["DERPMap"],
        )
        self.server.setDERPMap(DERPMap())
        self.assertEqual(
            {"Regions": {}, "HomeParams": {"RegionScore": {}}},
            self.frame()["DERPMap"],
        )

    def test_dns(self):
        """DNS settings are sent whole."""
        self.server.setDNS(
            DNSSettings(
                searchDomains=("corp.example",),
                records=(("x.tailnet.test", "A", "100.64.0.9"),),
                nameservers=("192.0.2.53",),
                routes={"corp.example": ("10.0.0.53",), "local.example": ()},
                certificates=True,
            )
        )
        self.assertEqual(
            {
                "Proxied": True,
                "Domains": ["tailnet.test", "corp.example"],
                "Resolvers": [{"Addr": "192.0.2.53"}],
                "Routes": {
                    "corp.example": [{"Addr": "10.0.0.53"}],
                    "local.example": [],
                },
                "CertDomains": ["n.tailnet.test"],
                "ExtraRecords": [
                    {"Name": "x.tailnet.test", "Type": "A", "Value": "100.64.0.9"}
                ],
            },
            self.frame()["DNSConfig"],
        )

    def test_health(self):
        """Problems are told, and that there are none any more."""
        self.server.setHealth("a", "b")
        self.assertEqual({"Health": ["a", "b"]}, self.frame())
        self.server.setHealth()
        self.assertEqual({"Health": []}, self.frame())

    def test_dialPlan(self):
        """Another way to the server is told, and taken back."""
        plan = ControlDialPlan(candidates=[ControlDialCandidate(ip="192.0.2.1")])
        self.server.setDialPlan(plan)
        self.assertEqual(
            {"ControlDialPlan": {"Candidates": [{"IP": "192.0.2.1"}]}}, self.frame()
        )
        self.server.setDialPlan(None)
        self.assertEqual({"ControlDialPlan": {}}, self.frame())

    def test_override(self):
        """One node may be shown another differently."""
        self.server.overridePeer("n", "p", isJailed=True)
        self.assertTrue(self.frame()["PeersChanged"][0]["IsJailed"])
        self.assertEqual([], self.frames(self.peer))
        self.server.overridePeer("n", "p")
        self.assertNotIn("IsJailed", self.frame()["PeersChanged"][0])

    def test_addresses(self):
        """New addresses of a node reach it and its peers."""
        self.server.setAddresses("p", ["100.64.7.7"])
        self.assertEqual(
            ["100.64.7.7/32"], self.frame()["PeersChanged"][0]["Addresses"]
        )
        self.assertEqual(["100.64.7.7/32"], self.frame(self.peer)["Node"]["Addresses"])

    def test_shells(self):
        """Rules about shells reach the nodes that they are about."""
        rule = {
            "action": "accept",
            "src": ["100.64.0.1"],
            "dst": ["100.64.0.2"],
            "users": ["root"],
        }
        self.server.setPolicy(json.dumps({"ssh": [rule]}))
        frame = self.frame(self.peer)
        [told] = frame["SSHPolicy"]["rules"]
        self.assertEqual("100.64.0.1", told["principals"][0]["nodeIP"])
        self.assertIn("https://tailscale.com/cap/ssh", frame["Node"]["CapMap"])
        self.assertNotIn("SSHPolicy", self.frame())
        self.server.setPolicy("")
        self.assertEqual({"rules": []}, self.frame(self.peer)["SSHPolicy"])

    def test_signature(self):
        """A node-key signature is a patch when it comes, a whole node when not."""
        tailnet, record = self.server._core.tailnet, self.server.node("p")
        tailnet.update(record, keySignature=b"sig")
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 2, "KeySignature": "c2ln"}]},
            self.frame(),
        )
        tailnet.update(record, keySignature=b"")
        self.assertNotIn("KeySignature", self.frame()["PeersChanged"][0])

    def test_version(self):
        """A client's new version is a patch."""
        self.peer.version = 146
        self.peer.update()
        self.assertEqual(
            {"PeersChangedPatch": [{"NodeID": 2, "Cap": 146}]}, self.frame()
        )

    def test_raw(self):
        """A test may send any frame at all."""
        self.server.sendRaw("n", MapResponse(domain="odd"))
        self.assertEqual({"Domain": "odd"}, self.frame())
        self.server.popBrowserURL("n", "http://x/")
        self.assertEqual({"PopBrowserURL": "http://x/"}, self.frame())
        self.node.client.close()
        self.assertRaises(NotRunning, self.server.sendRaw, "n", MapResponse())

    def test_patchNeedsPredecessor(self):
        """What a patch cannot take away is sent as a whole node."""
        self.peer.hostinfo["NetInfo"] = {"PreferredDERP": 900}
        self.peer.update()
        self.frame()
        self.server._core.tailnet.update(self.server.node("p"), homeDERP=0)
        self.assertNotIn("HomeDERP", self.frame()["PeersChanged"][0])


class RouteTests(SynchronousTestCase):
    """Tests for subnet routes and exit nodes."""

    def setUp(self):
        """Start a server with an observer and two routers."""
        self.harness = Harness()
        self.server = self.harness.server
        self.node = self.harness.node("n")
        self.routers = [self.router("r1"), self.router("r2")]
        self.harness.quiet(self.node)

    def router(self, name):
        """A node that offers routes."""
        node = self.harness.node(name)
        node.hostinfo["RoutableIPs"] = ["10.0.0.0/8", "0.0.0.0/0", "::/0"]
        node.update()
        return node

    def routes(self, number):
        """What the observer, asking anew, hears of the routes of a node."""
        [frame] = self.node.map().frames()
        [peer] = [peer for peer in frame["Peers"] if peer["ID"] == number]
        extra = [ip for ip in peer["AllowedIPs"] if ip not in peer["Addresses"]]
        return extra, peer.get("PrimaryRoutes")

    def test_unapproved(self):
        """Routes that nobody approved do not count."""
        self.assertEqual(([], None), self.routes(2))

    def test_approved(self):
        """One node serves each subnet; every exit node serves the rest."""
        for name in ("r1", "r2"):
            self.server.approveRoutes(name)
        default = ["0.0.0.0/0", "::/0"]
        self.assertEqual((["10.0.0.0/8", *default], ["10.0.0.0/8"]), self.routes(2))
        self.assertEqual((default, None), self.routes(3))
        self.harness.settle()
        self.assertEqual(
            {2, 3}, {p["ID"] for f in self.node.heard() for p in f["PeersChanged"]}
        )

    def test_failover(self):
        """When the router of a subnet goes offline, another takes over."""
        for name in ("r1", "r2"):
            self.server.approveRoutes(name, ["10.0.0.0/8"])
        self.assertEqual(["10.0.0.0/8"], self.routes(2)[1])
        self.routers[0].client.close()
        self.harness.advance(10)
        self.assertIsNone(self.routes(2)[1])
        self.assertEqual(["10.0.0.0/8"], self.routes(3)[1])

    def test_notAdvertised(self):
        """Approving routes that a node does not offer has no effect."""
        self.server.approveRoutes("r1", ["192.168.0.0/16"])
        self.assertEqual(([], None), self.routes(2))

    def test_autoApprovers(self):
        """The policy may approve routes by itself, also later ones."""
        self.server.setPolicy(
            '{"autoApprovers": {"routes": {"10.0.0.0/8": ["user@"]}}}'
        )
        self.harness.settle()
        self.assertEqual((["10.0.0.0/8"], ["10.0.0.0/8"]), self.routes(2))
        late = self.router("r3")
        self.harness.settle()
        routes = [route.text() for route in late.record.approvedRoutes]
        self.assertEqual(["10.0.0.0/8"], routes)


class PresenceTests(SynchronousTestCase):
    """Tests for who is online, and for ephemeral nodes."""

    def setUp(self):
        """Start a server with an observer."""
        self.harness = Harness(ControlConfig(offlineGrace=10, ephemeralTimeout=60))
        self.server = self.harness.server
        self.node = self.harness.node("n")

    def frames(self):
        """What the observer heard, keep-alives left out."""
        self.harness.settle()
        return [frame for frame in self.node.heard() if "KeepAlive" not in frame]

    def test_offline(self):
        """A node that leaves is offline after a moment, as of when it left."""
        peer = self.harness.node("p")
        self.harness.quiet(self.node)
        self.harness.advance(5)
        peer.client.close()
        self.harness.advance(9)
        self.assertEqual([], self.frames())
        self.harness.advance(1)
        self.assertEqual(
            [
                {
                    "PeersChangedPatch": [
                        {
                            "NodeID": 2,
                            "Online": False,
                            "LastSeen": "2026-01-01T00:00:05Z",
                        }
                    ]
                }
            ],
            self.frames(),
        )
        peer.connect()
        peer.listen()
        self.assertEqual([{"OnlineChange": {"2": True}}], self.frames())

    def test_backInTime(self):
        """A node that comes back within the moment was never offline."""
        peer = self.harness.node("p")
        self.harness.quiet(self.node)
        peer.client.close()
        self.harness.advance(9)
        peer.connect()
        peer.listen()
        self.harness.advance(30)
        self.assertEqual([], self.frames())

    def test_newStreamEndsTheOld(self):
        """A node has one stream; opening another ends the first quietly."""
        peer = self.harness.node("p")
        old = peer.poll
        self.harness.quiet(self.node)
        peer.listen()
        self.assertTrue(old.ended)
        self.harness.advance(20)
        self.assertEqual([], self.frames())
        self.server.renameNode("n", "m")
        self.harness.settle()
        self.assertTrue(peer.heard())

    def test_closePoll(self):
        """The server may end a stream; the node may open another."""
        self.assertTrue(self.server.isListening("n"))
        self.server.closePoll("n")
        self.node.client.pump()
        self.assertTrue(self.node.poll.ended)
        self.assertFalse(self.server.isListening("n"))
        self.assertEqual("n.tailnet.test.", self.node.listen()["Node"]["Name"])

    def ephemeral(self, **more):
        """An ephemeral node."""
        key = self.server.createAuthKey(ephemeral=True).text
        return self.harness.node("e", key, **more)

    def test_ephemeral(self):
        """An ephemeral node that stays away is removed."""
        node = self.ephemeral()
        self.harness.quiet(self.node)
        node.client.close()
        self.harness.advance(59)
        self.assertIsNotNone(node.record)
        self.harness.advance(1)
        self.assertIsNone(node.record)
        self.assertEqual({"PeersRemoved": [2]}, self.frames()[-1])

    def test_ephemeralComesBack(self):
        """An ephemeral node that comes back in time stays."""
        node = self.ephemeral()
        node.client.close()
        self.harness.advance(59)
        node.connect()
        node.listen()
        self.harness.advance(200, step=10)
        self.assertIsNotNone(node.record)

    def test_ephemeralNeverCame(self):
        """An ephemeral node that registers and never listens is removed."""
        node = self.ephemeral(listen=False)
        self.harness.advance(60)
        self.assertIsNone(node.record)

    def test_ephemeralByRequest(self):
        """A node may ask to be ephemeral itself."""
        node = self.harness.node("e", Ephemeral=True, listen=False)
        self.assertTrue(node.record.ephemeral)

    def test_restart(self):
        """After a restart of the service, who does not come back is gone."""
        node, stays = self.ephemeral(), self.harness.node("s")
        self.harness.stop()
        self.harness.server.startService()
        self.harness.advance(9)
        self.assertTrue(stays.record.online)
        self.harness.advance(51)
        self.assertFalse(stays.record.online)
        self.assertIsNone(node.record)


class StreamTests(SynchronousTestCase):
    """Tests for keep-alives and for readers that do not keep up."""

    def setUp(self):
        """Start a server with small limits and two nodes."""
        self.harness = Harness(ControlConfig(keepAlive=(50, 60), pollLimit=100_000))
        self.server = self.harness.server
        self.node = self.harness.node("n")
        self.harness.quiet(self.node)

    def test_keepAlive(self):
        """Streams on which nothing happens carry keep-alives."""
        self.harness.advance(49)
        self.assertEqual([], self.node.heard())
        self.harness.advance(12)
        self.assertEqual([{"KeepAlive": True}], self.node.heard())
        self.harness.advance(600)
        self.assertIn(len(self.node.heard()), (10, 11, 12))

    def test_keepAliveCompressed(self):
        """Keep-alives follow the compression of the stream."""
        self.node.listen(Compress="zstd")
        self.harness.advance(61)
        self.assertEqual([{"KeepAlive": True}], self.node.heard())

    def test_keepAliveAfterFrames(self):
        """Any frame puts the next keep-alive off."""
        for _ in range(5):
            self.harness.advance(40)
            self.server.setHealth(str(self.harness.reactor.seconds()))
            self.harness.settle()
        self.assertEqual([{"Health"}] * 5, [set(f) for f in self.node.heard()])

    def test_slowReader(self):
        """A reader that lags gets its changes in one step when it reads again."""
        self.node.client.acknowledging = False
        big = ["x" * 1000] * 100
        self.server.setHealth(*big)
        self.harness.settle()
        for number in range(50):
            self.server.setHealth(*big, str(number))
            self.harness.settle()
        poll = self.server._core.polls.of(self.server.node("n"))
        self.assertLess(poll._stream.pending, 110_000)
        frames = []
        self.node.client.acknowledging = True
        client = self.node.client
        client.h2.increment_flow_control_window(1 << 20)
        client.h2.increment_flow_control_window(1 << 20, self.node.poll.streamID)
        self.harness.settle()
        frames = self.node.heard()
        self.assertEqual(2, len(frames))
        self.assertEqual("49", frames[-1]["Health"][-1])

    def test_slowReaderOfTransport(self):
        """The same when it is the transport that is full."""
        self.node.client.stalled = True
        big = ["x" * 1000] * 100
        for number in range(50):
            self.server.setHealth(*big, str(number))
            self.harness.settle()
        self.assertLess(len(self.node.client.pipe.buffer), 200_000)
        self.node.client.stalled = False
        self.harness.settle()
        frames = self.node.heard()
        self.assertLess(len(frames), 10)
        self.assertEqual("49", frames[-1]["Health"][-1])

    def test_bound(self):
        """A stream for which too much waits is closed."""
        self.node.client.acknowledging = False
        for _ in range(200):
            if not self.server.isListening("n"):
                break
            self.server.popBrowserURL("n", "http://" + "x" * 10_000)
        self.assertFalse(self.server.isListening("n"))
        self.node.client.pump()
        self.assertTrue(self.node.poll.reset)

    def test_stalled(self):
        """A reader that takes nothing for two intervals is cut off."""
        self.node.client.acknowledging = False
        self.server.setHealth("x" * 100_000)
        self.harness.advance(49)
        self.assertTrue(self.server.isListening("n"))
        self.harness.advance(75)
        self.assertFalse(self.server.isListening("n"))
        self.assertTrue(self.node.poll.reset)
        # The connection goes on, and another stream may be opened.
        self.node.client.acknowledging = True
        self.node.client.h2.increment_flow_control_window(1 << 20)
        self.assertEqual(1, self.node.listen()["Node"]["ID"])

    def test_cancelled(self):
        """A node may give its stream up without closing the connection."""
        self.node.client.cancel(self.node.poll)
        self.assertFalse(self.server.isListening("n"))
        self.assertEqual(1, self.node.listen()["Node"]["ID"])

    def test_T_lag(self):
        """Whatever the reader missed meanwhile, it ends up with the truth."""
        self.node.client.acknowledging = False
        self.server.setHealth("x" * 70_000)
        self.harness.settle()
        peers = [self.harness.node(f"p{number}") for number in range(5)]
        for peer in peers[1:]:
            self.server.deleteNode(peer.hostname)
        self.harness.settle()
        client = self.node.client
        client.acknowledging = True
        client.h2.increment_flow_control_window(1 << 20)
        client.h2.increment_flow_control_window(1 << 20, self.node.poll.streamID)
        self.harness.settle()
        frames = self.node.heard()
        self.assertEqual(
            [peers[0].record.id],
            [peer["ID"] for frame in frames for peer in frame.get("PeersChanged", ())],
        )


class ManyNodesTests(SynchronousTestCase):
    """Tests with more than a handful of nodes."""

    def test_names(self):
        """Equal host names are told apart, odd ones made fit."""
        harness = Harness(ControlConfig(registration=RegistrationOptions()))
        names = [
            "Web",
            "web.local",
            "we_b",
            "a@b.c",
            "",
            "ü",
            "x" * 80,
            "x" * 80,
            "-w-",
        ]
        expected = ["web", "web-1", "we-b", "a-b-c", "node", "node-1"]
        expected += ["x" * 63, "x" * 61 + "-1", "w"]
        for hostname in names:
            harness.node(hostname, listen=False)
        self.assertEqual(expected, [node.name for node in harness.server.nodes()])

    def test_addresses(self):
        """Special addresses are passed over."""
        harness = Harness()
        pool = harness.server._core.tailnet._pool
        pool._last = 0x52
        self.assertEqual("100.64.0.84", harness.node("n", listen=False).record.ips[0])
        pool._last = 0x246463
        self.assertEqual(
            "100.100.100.101", harness.node("m", listen=False).record.ips[0]
        )
        pool._last = 0x335BFF
        self.assertEqual("100.115.94.0", harness.node("o", listen=False).record.ips[0])
