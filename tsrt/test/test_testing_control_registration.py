"""Tests for who is let into the tailnet by the embedded control server."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from tsrt.errors import ConfigError, UnknownPeer
from tsrt.keys import NodeKey
from tsrt.test.rawcontrol import Harness, Random, RawNode
from tsrt.testing.control import (
    EPOCH,
    ControlConfig,
    Refusal,
    RegistrationOptions,
)
from tsrt.testing.control.logins import MAX_PENDING

POLICY = json.dumps(
    {
        "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
        "tagOwners": {
            "tag:web": ["alice@"],
            "tag:child": ["tag:parent"],
        },
    }
)


def harness(*, policy="", users=("alice", "bob"), **options):
    """A server with registration options."""
    return Harness(
        ControlConfig(
            users=users, policy=policy, registration=RegistrationOptions(**options)
        )
    )


class AuthKeyTests(SynchronousTestCase):
    """Tests for nodes that come with an auth key."""

    def setUp(self):
        """Start a server."""
        self.harness = harness(policy=POLICY)
        self.server = self.harness.server

    def node(self, hostname="n"):
        """A machine that is not in yet."""
        return RawNode(self.harness, hostname)

    def refused(self, response, status, text):
        """The response is an error."""
        self.assertEqual((status, text), (response.status, response.text))

    def test_success(self):
        """A good key lets a node in, with names, addresses and a profile."""
        key = self.server.createAuthKey("bob").text
        node = self.node()
        answer = node.register(key).json()
        self.assertTrue(answer["MachineAuthorized"])
        self.assertFalse(answer["NodeKeyExpired"])
        self.assertEqual(("", ""), (answer["AuthURL"], answer["Error"]))
        self.assertEqual(2, answer["User"]["ID"])
        self.assertEqual("bob@tailnet.test", answer["Login"]["LoginName"])
        record = node.record
        self.assertEqual(("100.64.0.1", "fd7a:115c:a1e0::1"), record.ips)
        self.assertEqual("n", record.name)
        self.assertEqual(145, record.version)

    def test_unknown(self):
        """An unknown or revoked key is refused."""
        node = self.node()
        self.refused(node.register("nonsense"), 401, "invalid auth key")
        key = self.server.createAuthKey()
        self.server.revokeAuthKey(key)
        self.refused(node.register(key.text), 401, "invalid auth key")
        self.assertEqual([], self.server.nodes())

    def test_expired(self):
        """A key is good until it ends."""
        key = self.server.createAuthKey(lifetime=60, reusable=True).text
        self.assertEqual(200, self.node("early").register(key).status)
        self.harness.advance(60, step=60)
        self.refused(self.node("late").register(key), 401, "auth key expired")

    def test_used(self):
        """A one-time key is good for one node, a reusable one for many."""
        key = self.server.createAuthKey().text
        self.assertEqual(200, self.node("a").register(key).status)
        self.refused(self.node("b").register(key), 401, "auth key already used")
        key = self.server.createAuthKey(reusable=True).text
        self.assertEqual(200, self.node("c").register(key).status)
        self.assertEqual(200, self.node("d").register(key).status)

    def test_usedBySameNode(self):
        """A node may come back with the one-time key that let it in."""
        key = self.server.createAuthKey(lifetime=60).text
        node = self.node()
        node.register(key)
        self.harness.advance(100, step=100)
        self.assertTrue(node.register(key).json()["MachineAuthorized"])
        old = node.newKey()
        response = node.register(key, OldNodeKey=old.public().text())
        self.refused(response, 401, "auth key expired")

    def test_usedBySameNodeAfterItsEnd(self):
        """A one-time key does not bring a node back whose own key has ended."""
        key = self.server.createAuthKey().text
        node = self.node()
        node.register(key)
        self.server.expireNode("n")
        self.refused(node.register(key), 401, "auth key already used")

    def test_wrapped(self):
        """The signature behind a wrapped key is not part of it."""
        key = self.server.createAuthKey().text
        self.assertEqual(200, self.node().register(f"{key}--TLc2ln-a2V5").status)

    def test_tags(self):
        """Nodes of a tagged key have its tags and no user."""
        key = self.server.createAuthKey(tags=["tag:parent", "tag:x"]).text
        node = self.node()
        answer = node.register(key).json()
        self.assertEqual("tagged-devices", answer["Login"]["LoginName"])
        self.assertEqual(("tag:parent", "tag:x"), node.record.tags)
        self.assertRaises(ConfigError, self.server.createAuthKey, tags=["x"])

    def test_requestedTags(self):
        """Requested tags are given when the tag owners allow it."""
        cases = [
            ("alice", (), "tag:web", True),
            ("bob", (), "tag:web", False),
            ("alice", (), "tag:unknown", False),
            ("alice", ("tag:parent",), "tag:child", True),
            ("alice", ("tag:parent",), "tag:web", False),
            ("bob", ("tag:web",), "tag:web", True),
        ]
        for number, (user, tags, wanted, allowed) in enumerate(cases):
            key = self.server.createAuthKey(user, tags=tags).text
            node = self.node(f"n{number}")
            node.hostinfo["RequestTags"] = [wanted]
            response = node.register(key)
            if allowed:
                self.assertIn(wanted, node.record.tags)
            else:
                self.refused(
                    response,
                    401,
                    f"requested tags [{wanted}] are invalid or not permitted",
                )
                self.assertIsNone(node.record)

    def test_refusedTagsDoNotUseTheKey(self):
        """A one-time key is still good after a refusal."""
        key = self.server.createAuthKey("bob").text
        node = self.node()
        node.hostinfo["RequestTags"] = ["tag:web"]
        node.register(key)
        del node.hostinfo["RequestTags"]
        self.assertEqual(200, node.register(key).status)

    def test_sameKeyTwice(self):
        """Two auth keys cannot have the same text."""
        self.server.createAuthKey(text="k")
        self.assertRaises(ConfigError, self.server.createAuthKey, text="k")


class RequestTests(SynchronousTestCase):
    """Tests for what makes a request fail."""

    def setUp(self):
        """Start a server with one node."""
        self.harness = harness()
        self.node = self.harness.node("n", listen=False)

    def refused(self, response, status, words):
        """The response is an error."""
        self.assertEqual(status, response.status)
        self.assertIn(words, response.text)

    def test_malformed(self):
        """Malformed requests are told what is wrong with them."""
        for body in (b"", b"{", b"[]", b'{"Version": "x"}'):
            response = self.node.client.request("/machine/register", body)
            self.refused(response, 400, "malformed request")
        self.refused(self.node.register(NodeKey=""), 400, "missing node key")
        zero = "nodekey:" + "0" * 64
        self.refused(self.node.register(NodeKey=zero), 400, "missing node key")
        self.refused(self.node.register(NodeKey="x"), 400, "malformed node key")
        self.refused(self.node.register(OldNodeKey="x"), 200, "")
        self.node.newKey()
        self.refused(self.node.register(OldNodeKey="x"), 400, "malformed node key")

    def test_oldVersion(self):
        """Clients below the floor are refused."""
        self.refused(self.node.register(Version=67), 400, "unsupported client version")
        self.assertEqual(200, self.node.register(Version=68).status)

    def test_otherMachine(self):
        """A node key belongs to one machine."""
        other = RawNode(self.harness, "other")
        other.nodeKey = self.node.nodeKey
        self.refused(other.register(), 401, "node key belongs to another machine")

    def test_otherTailnet(self):
        """A machine that insists on another tailnet is refused."""
        self.refused(
            self.node.register(Tailnet="required:else"), 401, "this is the tailnet"
        )
        for name in ("required:tailnet.test", "else", ""):
            self.assertEqual(200, self.node.register(Tailnet=name).status)


class KnownNodeTests(SynchronousTestCase):
    """Tests for nodes that come back, log out, expire or change their key."""

    def setUp(self):
        """Start a server with one node."""
        self.harness = harness()
        self.server = self.harness.server
        self.node = self.harness.node("n", listen=False)

    def test_restart(self):
        """A known node with a good key needs nothing more."""
        answer = self.node.register().json()
        self.assertTrue(answer["MachineAuthorized"])
        self.assertEqual("", answer["AuthURL"])

    def test_logout(self):
        """A past expiry logs the node out; it stays known, with its key ended."""
        answer = self.node.logout().json()
        self.assertTrue(answer["NodeKeyExpired"])
        self.assertEqual(EPOCH, self.node.record.expires)
        self.harness.advance(5)
        self.node.logout()
        self.assertEqual(EPOCH, self.node.record.expires)

    def test_logoutOfUnknown(self):
        """Logging out a node that is not there is no error."""
        self.node.newKey()
        answer = self.node.logout()
        self.assertEqual(200, answer.status)
        self.assertTrue(answer.json()["NodeKeyExpired"])

    def test_logoutOfOther(self):
        """A machine cannot log another one out."""
        other = RawNode(self.harness, "other")
        other.nodeKey = self.node.nodeKey
        self.assertEqual(401, other.logout().status)
        self.assertIsNone(self.node.record.expires)

    def test_logoutEphemeral(self):
        """An ephemeral node is gone as soon as it logs out."""
        key = self.server.createAuthKey(ephemeral=True).text
        node = self.harness.node("e", key)
        watcher = self.harness.node("w")
        answer = node.logout().json()
        self.assertTrue(answer["NodeKeyExpired"])
        self.assertFalse(answer["MachineAuthorized"])
        self.assertIsNone(node.record)
        self.harness.settle()
        self.assertEqual([{"PeersRemoved": [2]}], watcher.heard())

    def test_expired(self):
        """A node whose key has ended is told so."""
        self.server.expireNode("n")
        answer = self.node.register().json()
        self.assertTrue(answer["NodeKeyExpired"])
        self.assertEqual("", answer["AuthURL"])

    def test_expiredWithAuthKey(self):
        """An auth key brings a node back whose key has ended."""
        self.server.expireNode("n")
        key = self.server.createAuthKey().text
        self.assertTrue(self.node.register(key).json()["MachineAuthorized"])
        self.assertIsNone(self.node.record.expires)
        self.assertEqual(1, self.node.record.id)

    def test_expiryChanged(self):
        """A key may be made to end sooner, never later."""
        soon, later = "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"
        self.assertEqual(200, self.node.register(Expiry=soon).status)
        self.assertEqual(EPOCH + 3600, self.node.record.expires)
        for when in (soon, later):
            response = self.node.register(Expiry=when)
            self.assertEqual(400, response.status)
            self.assertEqual("extending key is not allowed", response.text)

    def test_lifetime(self):
        """Keys end after the configured time, but not those of tagged nodes."""
        rig = harness(keyLifetime=1000.0)
        node = rig.node("n", listen=False)
        self.assertEqual(EPOCH + 1000, node.record.expires)
        tagged = rig.server.createAuthKey(tags=["tag:x"]).text
        self.assertIsNone(rig.node("t", tagged, listen=False).record.expires)
        sooner = rig.node("s", listen=False, Expiry="2026-01-01T00:01:00Z")
        self.assertEqual(EPOCH + 60, sooner.record.expires)

    def rotate(self, authKey="", **fields):
        """Register with a new key in place of the old one."""
        old = self.node.newKey()
        return self.node.register(authKey, OldNodeKey=old.public().text(), **fields)

    def test_rotation(self):
        """With a new key the node keeps its number, name and addresses."""
        before = self.node.record
        key = self.server.createAuthKey().text
        self.assertEqual(200, self.rotate(key).status)
        self.assertIs(before, self.node.record)
        self.assertEqual(1, len(self.server.nodes()))

    def test_rotationAsksForLogin(self):
        """Without credentials a new key takes a login, even with a good old key."""
        self.assertIn("/a/", self.rotate().json()["AuthURL"])
        self.assertIsNone(self.node.record)

    def test_rotationWithoutLogin(self):
        """If so configured, a good old key vouches for the new one."""
        rig = harness(rotationNeedsLogin=False, keyLifetime=1000.0)
        self.node = rig.node("n", listen=False)
        self.assertTrue(self.rotate().json()["MachineAuthorized"])
        self.assertEqual(1, len(rig.server.nodes()))
        self.assertEqual(EPOCH + 1000, self.node.record.expires)
        rig.server.expireNode("n")
        self.assertIn("/a/", self.rotate().json()["AuthURL"])

    def test_rotationOfOther(self):
        """The old key of another machine gives no claim to its node."""
        other = RawNode(self.harness, "other")
        key = self.server.createAuthKey().text
        other.register(key, OldNodeKey=self.node.keyText)
        self.assertEqual(2, len(self.server.nodes()))
        self.assertEqual(1, self.node.record.id)
        self.assertEqual(2, other.record.id)

    def test_rotationEndsPolls(self):
        """A stream under the old key ends."""
        self.node.listen()
        self.rotate(self.server.createAuthKey().text)
        self.node.client.pump()
        self.assertTrue(self.node.poll.ended)
        self.assertEqual(200, self.node.map().status)

    def test_sameMachineSameUser(self):
        """A machine that lost its node key becomes the same node again."""
        self.node.newKey()
        self.node.register(self.server.createAuthKey("alice").text)
        self.assertEqual(1, self.node.record.id)
        self.node.newKey()
        self.node.register(self.server.createAuthKey("bob").text)
        self.assertEqual(2, self.node.record.id)
        self.assertEqual("n-1", self.node.record.name)

    def test_deleted(self):
        """A deleted node is a stranger, and its number does not come back."""
        self.server.deleteNode("n")
        self.assertIn("/a/", self.node.register().json()["AuthURL"])
        self.node.register(self.server.createAuthKey().text)
        self.assertEqual(2, self.node.record.id)

    def test_T_peerDB(self):
        """Deleting a node does not take a key away that moved to another."""
        self.node.newKey()
        self.node.register(self.server.createAuthKey("bob").text)
        first, second = self.server.nodes()
        # The first node takes over the second one's key.
        self.server._core.tailnet.rekey(first, second.nodeKey)
        self.server.deleteNode(second)
        self.assertIs(first, self.node.record)
        self.assertEqual(200, self.node.map().status)


class InteractiveTests(SynchronousTestCase):
    """Tests for logins that wait for a person."""

    def setUp(self):
        """Start a server with one machine that wants in."""
        self.harness = harness(policy=POLICY)
        self.server = self.harness.server
        self.node = RawNode(self.harness, "n")

    def url(self):
        """The URL that the machine is given."""
        answer = self.node.register().json()
        self.assertFalse(answer["MachineAuthorized"])
        return answer["AuthURL"]

    def test_T_loginURL(self):
        """One login has one URL; another node key is another login."""
        url = self.url()
        self.assertTrue(url.startswith("http://127.0.0.1:8080/a/"))
        self.assertEqual(url, self.url())
        self.node.newKey()
        self.assertNotEqual(url, self.url())

    def test_followup(self):
        """Following up waits until a person has decided."""
        url = self.url()
        waiting = self.node.register(Followup=url)
        self.assertIsNone(waiting.status)
        self.assertEqual(["n"], [login.hostname for login in self.server.logins()])
        node = self.server.approve(url, "bob")
        self.node.client.pump()
        self.assertTrue(waiting.json()["MachineAuthorized"])
        self.assertEqual("bob@tailnet.test", waiting.json()["Login"]["LoginName"])
        self.assertIs(node, self.node.record)
        self.assertEqual([], self.server.logins())

    def test_followupLater(self):
        """Following up after the decision is answered at once, also twice."""
        url = self.url()
        self.server.approve(url.rpartition("/")[2])
        for _ in range(2):
            answer = self.node.register(Followup=url).json()
            self.assertTrue(answer["MachineAuthorized"])

    def test_denied(self):
        """A refusal reaches the machine as an error."""
        url = self.url()
        waiting = self.node.register(Followup=url)
        self.server.deny(url, "not you")
        self.node.client.pump()
        self.assertEqual("not you", waiting.json()["Error"])
        self.assertNotEqual(url, self.url())

    def test_followupTooLate(self):
        """A login that is too old is answered with a new URL."""
        url = self.url()
        waiting = self.node.register(Followup=url)
        self.harness.advance(899, step=100)
        self.assertIsNone(waiting.status)
        self.harness.advance(1)
        self.assertNotIn(waiting.json()["AuthURL"], ("", url))

    def test_followupOfOther(self):
        """Nobody else may follow a login up."""
        url = self.url()
        other = RawNode(self.harness, "other")
        self.assertEqual(401, other.register(Followup=url).status)
        self.node.newKey()
        self.assertEqual(401, self.node.register(Followup=url).status)

    def test_followupGivenUp(self):
        """A machine that stops waiting leaves nothing behind."""
        url = self.url()
        waiting = self.node.register(Followup=url)
        [login] = self.server.logins()
        self.assertEqual(1, len(login.waiters))
        self.node.client.cancel(waiting)
        self.assertEqual([], login.waiters)
        waiting = self.node.register(Followup=url)
        self.node.client.close()
        self.assertEqual([], login.waiters)
        self.server.approve(url)
        self.assertIsNotNone(self.node.record)

    def test_tags(self):
        """The user who approves has to own the tags that are asked for."""
        self.node.hostinfo["RequestTags"] = ["tag:web"]
        url = self.url()
        self.assertRaises(Refusal, self.server.approve, url, "bob")
        self.server.approve(url, "alice")
        self.assertEqual(("tag:web",), self.node.record.tags)

    def test_again(self):
        """Logging in again after a logout gives the same node."""
        self.server.approve(self.url(), "bob")
        self.node.logout()
        self.node.newKey()
        self.server.approve(self.url(), "bob")
        self.assertEqual(1, self.node.record.id)
        self.assertIsNone(self.node.record.expires)

    def test_bounded(self):
        """The oldest logins are dropped when too many wait."""
        first = self.url()
        core = self.server._core
        request = self.server.logins()[0].request
        for number in range(MAX_PENDING):
            key = NodeKey.generate(Random(b"%d" % number)).public()
            request = type(request)(version=145, nodeKey=key.text())
            core.registrar.register(self.node.machine.public(), 145, request, EPOCH)
        self.assertEqual(MAX_PENDING, len(self.server.logins()))
        self.assertRaises(UnknownPeer, self.server.approve, first)

    def test_autoLogin(self):
        """If so configured, nobody has to be asked."""
        rig = harness(autoLogin="bob")
        node = RawNode(rig, "n")
        answer = node.register().json()
        self.assertTrue(answer["MachineAuthorized"])
        self.assertEqual("bob@tailnet.test", answer["Login"]["LoginName"])


class ApprovalTests(SynchronousTestCase):
    """Tests for machines that an administrator has to approve."""

    def setUp(self):
        """Start a server that asks for approval."""
        self.harness = harness(requireApproval=True)
        self.server = self.harness.server

    def test_T_approval(self):
        """A machine that waits for approval is told so without a URL."""
        key = self.server.createAuthKey(preApproved=False).text
        node = RawNode(self.harness, "n")
        answer = node.register(key).json()
        self.assertFalse(answer["MachineAuthorized"])
        self.assertEqual(("", ""), (answer["AuthURL"], answer["Error"]))
        self.assertFalse(node.listen()["Node"].get("MachineAuthorized", False))
        self.server.approveNode("n")
        self.harness.settle()
        [frame] = node.heard()
        self.assertTrue(frame["Node"]["MachineAuthorized"])
        self.assertTrue(node.register().json()["MachineAuthorized"])

    def test_preApproved(self):
        """A pre-approved key stands for the administrator."""
        key = self.server.createAuthKey().text
        node = RawNode(self.harness, "n")
        self.assertTrue(node.register(key).json()["MachineAuthorized"])

    def test_unapprovedIsAlone(self):
        """An unapproved node and the others do not see each other."""
        watcher = self.harness.node("w")
        key = self.server.createAuthKey(preApproved=False).text
        node = RawNode(self.harness, "n")
        node.register(key)
        self.assertEqual([], node.listen()["Peers"])
        self.harness.settle()
        self.assertEqual([], watcher.heard())
        self.server.approveNode("n")
        self.harness.settle()
        self.assertEqual([1], [p["ID"] for p in node.heard()[0]["PeersChanged"]])
        self.assertEqual([2], [p["ID"] for p in watcher.heard()[0]["PeersChanged"]])

    def test_staysApproved(self):
        """Approval survives a new login."""
        node = RawNode(self.harness, "n")
        self.server.approve(node.register().json()["AuthURL"])
        self.assertFalse(node.record.authorized)
        self.server.approveNode("n")
        node.logout()
        node.newKey()
        self.server.approve(node.register().json()["AuthURL"])
        self.assertTrue(node.record.authorized)


class UserTests(SynchronousTestCase):
    """Tests for users."""

    def test_users(self):
        """Users have a login name, with the domain unless they bring one."""
        server = harness(users=("alice",)).server
        server.addUser("bob@example.com", "Bob B.", admin=True)
        alice, bob = server.users()
        self.assertEqual(
            ("alice@tailnet.test", "Alice"), (alice.login, alice.displayName)
        )
        self.assertEqual(("bob@example.com", "Bob B."), (bob.login, bob.displayName))
        self.assertRaises(ConfigError, server.addUser, "alice")
        self.assertRaises(ConfigError, server.addUser, "")
        self.assertRaises(ConfigError, server.createAuthKey, "carol")
