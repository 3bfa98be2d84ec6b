"""Tests for L{tsrt.testing.policy}."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tsrt.addresses import Prefix
from tsrt.testing.policy import (
    ALL_PORTS,
    CapabilityRule,
    CompiledPolicy,
    PacketRule,
    Policy,
    PolicyError,
    PortRange,
    Subject,
    checkTests,
    parsePolicy,
    shellRules,
)
from tsrt.testing.policy.compile import INTERNET
from tsrt.testing.policy.hujson import MAX_DEPTH, parseHuJSON


def node(number, login="", tags=(), routes=(), admin=False):
    """A subject with the addresses of node C{number}."""
    return Subject(
        number,
        login=login,
        admin=admin,
        tags=frozenset(tags),
        addresses=(
            Prefix.parse(f"100.64.0.{number}"),
            Prefix.parse(f"fd7a:115c:a1e0::{number:x}"),
        ),
        routes=tuple(Prefix.parse(route) for route in routes),
    )


ALICE1 = node(1, "alice@example.com", admin=True)
ALICE2 = node(2, "alice@example.com")
BOB = node(3, "bob@example.com")
WEB = node(4, tags=["tag:web"])
ROUTER = node(5, tags=["tag:router"], routes=["10.1.0.0/16"])
EXIT = node(6, tags=["tag:exit"], routes=["0.0.0.0/0", "::/0"])
ALL = (ALICE1, ALICE2, BOB, WEB, ROUTER, EXIT)


def compiled(**sections):
    """The sections of a policy, compiled for all nodes above."""
    return CompiledPolicy(parsePolicy(json.dumps(sections)), ALL)


def acl(src, dst, **more):
    """One accepting rule."""
    return {"action": "accept", "src": src, "dst": dst, **more}


def addresses(*subjects):
    """The addresses of nodes, as rules name them."""
    return tuple(
        prefix.text().partition("/")[0]
        for subject in subjects
        for prefix in subject.addresses
    )


class HuJSONTests(SynchronousTestCase):
    """Tests for L{parseHuJSON}."""

    def test_commentsAndTrailingCommas(self):
        """Comments of both kinds and trailing commas are passed over."""
        text = """
        // first
        {
            "a": [1, 2.5, -3e2, /* inside */ "x // no comment",],
            "b": {"c": null, "d": true, "e": false,},  // last
        }
        /* end */
        """
        self.assertEqual(
            {
                "a": [1, 2.5, -300.0, "x // no comment"],
                "b": {"c": None, "d": True, "e": False},
            },
            parseHuJSON(text).value,
        )

    def test_linesAreRemembered(self):
        """Each value knows its line."""
        document = parseHuJSON('{\n"a": [\n1,\n2\n]}')
        self.assertEqual(4, document.lines[("a", 1)])
        error = document.error(("a", 1, "deeper"), "no good")
        self.assertEqual("line 4, a[1].deeper: no good", str(error))

    def test_malformed(self):
        """Every kind of malformed document is an error that names its line."""
        cases = {
            "": "ends in the middle",
            "{": "double quotes",
            "[1 2]": "',' or ']'",
            "[1": "',' or ']'",
            "{} {}": "follows the end",
            '{"a" 1}': "':' was expected",
            '{"a": 1, "a": 2}': "given twice",
            "{a: 1}": "double quotes",
            '"\\ud800"': "malformed escape",
            '"a\nb"': "not closed",
            "/* never": "comment is not closed",
            "nope": "a value was expected",
            "1" * 100: "too long",
            "[,]": "a value was expected",
            "[" * (MAX_DEPTH + 2): "nested too deeply",
        }
        for text, expected in cases.items():
            error = self.assertRaises(PolicyError, parseHuJSON, text)
            self.assertIn(expected, str(error), text)
            self.assertEqual(1, error.line)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**53), 2**53)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner) | st.dictionaries(st.text("ab/*,"), inner),
            max_leaves=10,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_plainJSON(self, value):
        """Ordinary JSON means what it means to everybody."""
        self.assertEqual(value, parseHuJSON(json.dumps(value)).value)

    @given(st.text('{}[],:"\\/*\n 01.e-truefalsn', max_size=40))
    @settings(max_examples=150, deadline=None)
    @example("[1,,]")
    def test_onlyPolicyErrors(self, text):
        """Whatever the text, only L{PolicyError} comes out."""
        try:
            parsePolicy(text)
        except PolicyError:
            pass


class ParsingTests(SynchronousTestCase):
    """Tests for what documents are refused, and where the error points."""

    def refused(self, document, path, words):
        """The document is refused with a path and some words."""
        text = json.dumps(document, indent=1)
        error = self.assertRaises(PolicyError, parsePolicy, text)
        self.assertIn(path, str(error))
        self.assertIn(words, str(error))
        self.assertGreater(error.line, 0)

    def test_refusals(self):
        """What cannot be enforced is refused at its place, never ignored."""
        rule = acl(["*"], ["*:*"])
        cases = [
            ([], "line 1", "object"),
            ({"acl": []}, "acl", "unknown here"),
            ({"postures": {}}, "postures", "not supported"),
            ({"acls": {}}, "acls", "a list"),
            ({"acls": [3]}, "acls[0]", "an object"),
            ({"acls": [{**rule, "action": "deny"}]}, "acls[0].action", "accept"),
            ({"acls": [{**rule, "srcPosture": []}]}, "acls[0]", "not supported"),
            ({"acls": [{**rule, "sources": []}]}, "acls[0].sources", "unknown"),
            ({"acls": [acl(["*"], ["tag:web"])]}, "acls[0].dst[0]", "'web'"),
            ({"acls": [acl(["*"], ["web"])]}, "acls[0].dst[0]", "needs ports"),
            ({"acls": [acl(["*"], ["*:99999"])]}, "acls[0].dst[0]", "65535"),
            ({"acls": [acl(["*"], ["*:9-1"])]}, "acls[0].dst[0]", "before it starts"),
            ({"acls": [acl(["*"], ["*:x"])]}, "acls[0].dst[0]", "no port"),
            ({"acls": [acl(["group:no"], ["*:*"])]}, "acls[0].src[0]", "not defined"),
            ({"acls": [acl(["tag:-"], ["*:*"])]}, "acls[0].src[0]", "not a tag"),
            ({"acls": [acl(["autogroup:x"], [])]}, "acls[0].src[0]", "not supported"),
            ({"acls": [acl(["autogroup:self"], [])]}, "src[0]", "not possible here"),
            ({"acls": [acl(["nobody"], [])]}, "acls[0].src[0]", "no user"),
            ({"acls": [acl(["10.0.0.1/8"], [])]}, "acls[0].src[0]", "bits set"),
            ({"acls": [acl(["1.2.3"], [])]}, "acls[0].src[0]", "not an address"),
            ({"acls": [acl([7], [])]}, "acls[0].src[0]", "a string"),
            ({"acls": [{**rule, "proto": "quic"}]}, "acls[0].proto", "protocol"),
            ({"acls": [{**rule, "proto": 300}]}, "acls[0].proto", "protocol"),
            ({"acls": [acl(["*"], ["*:1"], proto="icmp")]}, "dst[0]", "no ports"),
            ({"grants": [{"src": ["*"], "dst": ["*"]}]}, "grants[0]", "'ip' or 'app'"),
            ({"grants": [{"src": ["*"], "via": []}]}, "grants[0].via", "not supp"),
            (
                {"grants": [{"src": ["*"], "dst": ["*"], "ip": ["icmp:1"]}]},
                "grants[0].ip[0]",
                "no ports",
            ),
            ({"groups": {"dev": []}}, "groups.dev", "group:"),
            ({"groups": {"group:dev": ["group:x"]}}, "groups.group:dev[0]", "users"),
            ({"hosts": {"a:b": "1.2.3.4"}}, "hosts.a:b", "host name"),
            ({"hosts": {"a": "1.2.3.4.5"}}, "hosts.a", "not an address"),
            ({"tagOwners": {"web": []}}, "tagOwners.web", "not a tag"),
            ({"tagOwners": {"tag:web": ["*"]}}, "tagOwners.tag:web[0]", "not poss"),
            ({"autoApprovers": {"x": []}}, "autoApprovers.x", "unknown"),
            ({"nodeAttrs": [{"ipPool": []}]}, "nodeAttrs[0].ipPool", "not supported"),
            ({"ssh": [{"action": "deny"}]}, "ssh[0].action", "'accept' or 'check'"),
            ({"ssh": [{"action": "accept"}]}, "ssh[0].users", "needs users"),
            (
                {"ssh": [{"action": "accept", "users": ["x"], "recorder": []}]},
                "ssh[0].recorder",
                "not supported",
            ),
            ({"tests": [{"src": "*"}]}, "tests[0].src", "one source"),
            (
                {"tests": [{"src": "a@b", "accept": ["tag:x:1-2"]}]},
                "tests[0].accept[0]",
                "one port",
            ),
            (
                {"tests": [{"src": "a@b", "deny": ["autogroup:self:1"]}]},
                "tests[0].deny[0]",
                "not possible",
            ),
        ]
        for document, path, words in cases:
            self.refused(document, path, words)

    def test_caseOfNamesDoesNotMatter(self):
        """Section and member names are read in any case, but only once."""
        policy = parsePolicy(
            '{"ACLs": [{"Action": "accept", "Src": ["*"], "Dst": ["*:*"]}]}'
        )
        self.assertEqual(Policy.allowAll().rules, policy.rules)
        self.refused({"acls": [], "ACLs": []}, "ACLs", "twice")

    def test_noRuleSectionMeansAllowAll(self):
        """A document without acls and grants leaves the default in force."""
        self.assertEqual(Policy.allowAll().rules, parsePolicy("{}").rules)
        self.assertEqual((), parsePolicy('{"acls": []}').rules)


class PacketRuleTests(SynchronousTestCase):
    """Tests for the packet filter of a node."""

    def test_allowAll(self):
        """The default policy is one rule on each node."""
        policy = CompiledPolicy(Policy.allowAll(), ALL)
        for subject in ALL:
            self.assertEqual(
                (PacketRule(("*",), (("*", ALL_PORTS),)),), policy.rulesFor(subject)
            )

    def test_emptyDeniesAll(self):
        """No rules means no filter rules and no visible peers."""
        policy = compiled(acls=[])
        self.assertEqual((), policy.rulesFor(WEB))
        self.assertEqual(frozenset(), policy.visible(WEB))

    def test_sources(self):
        """Each kind of source becomes the addresses it stands for."""
        groups = {"group:all": ["alice@example.com", "bob@"]}
        hosts = {"lan": "10.9.0.0/16", "box": "10.9.0.1"}
        cases = {
            "*": ("*",),
            "autogroup:danger-all": ("*",),
            "alice@example.com": addresses(ALICE1, ALICE2),
            "alice@": addresses(ALICE1, ALICE2),
            "group:all": addresses(ALICE1, ALICE2, BOB),
            "tag:router": addresses(ROUTER),
            "autogroup:member": addresses(ALICE1, ALICE2, BOB),
            "autogroup:tagged": addresses(WEB, ROUTER, EXIT),
            "autogroup:admin": addresses(ALICE1),
            "lan": ("10.9.0.0/16",),
            "box": ("10.9.0.1",),
            "100.64.0.0/24": ("100.64.0.0/24",),
            "fd7a:115c:a1e0::3": ("fd7a:115c:a1e0::3",),
        }
        for source, expected in cases.items():
            policy = compiled(
                groups=groups, hosts=hosts, acls=[acl([source], ["tag:web:80"])]
            )
            (rule,) = policy.rulesFor(WEB)
            self.assertEqual(expected, rule.sources, source)

    def test_sourcesOfNobody(self):
        """A rule whose sources nobody has is not sent."""
        policy = compiled(acls=[acl(["carol@", "tag:none"], ["*:*"])])
        self.assertEqual((), policy.rulesFor(WEB))

    def test_destinations(self):
        """A rule is sent only to the nodes that its destinations mean."""
        http = PortRange(80, 80)
        own = tuple((text, http) for text in addresses(WEB))
        cases = {
            "tag:web:80": (own, None),
            "*:80": ((("*", http),), (("*", http),)),
            "alice@:80": (None, tuple((a, http) for a in addresses(ALICE1))),
            "autogroup:tagged:80": (own, None),
            "100.64.0.4:80": ((("100.64.0.4", http),), None),
            "100.64.0.0/29:80": (
                (("100.64.0.0/29", http),),
                (("100.64.0.0/29", http),),
            ),
            "fd7a:115c:a1e0::4:80": ((("fd7a:115c:a1e0::4", http),), None),
            "[fd7a:115c:a1e0::4]:80": ((("fd7a:115c:a1e0::4", http),), None),
            "10.1.2.0/24:80": (None, None),
        }
        for target, expected in cases.items():
            policy = compiled(acls=[acl(["*"], [target])])
            for subject, destinations in zip((WEB, ALICE1), expected, strict=True):
                found = policy.rulesFor(subject)
                if destinations is None:
                    self.assertEqual((), found, target)
                else:
                    self.assertEqual(destinations, found[0].destinations, target)

    def test_routedDestination(self):
        """A subnet destination is sent to the router that serves it."""
        policy = compiled(acls=[acl(["bob@"], ["10.1.2.0/24:22,8000-8999"])])
        self.assertEqual(
            (
                PacketRule(
                    addresses(BOB),
                    (
                        ("10.1.2.0/24", PortRange(22, 22)),
                        ("10.1.2.0/24", PortRange(8000, 8999)),
                    ),
                ),
            ),
            policy.rulesFor(ROUTER),
        )
        self.assertEqual(frozenset((3,)), policy.visible(ROUTER))
        self.assertEqual(frozenset((5,)), policy.visible(BOB))

    def test_internet(self):
        """C{autogroup:internet} reaches exit nodes, and only public addresses."""
        policy = compiled(acls=[acl(["bob@"], ["autogroup:internet:*"])])
        self.assertEqual((), policy.rulesFor(ROUTER))
        (rule,) = policy.rulesFor(EXIT)
        prefixes = [Prefix.parse(text) for text, _ in rule.destinations]
        self.assertEqual(INTERNET, tuple(p.text() for p in prefixes))
        for inside in ("8.8.8.8", "100.63.255.255", "172.15.0.1", "2001:4860::1"):
            address = Prefix.parse(inside).address
            self.assertEqual(1, sum(p.contains(address) for p in prefixes), inside)
        for outside in ("10.0.0.1", "100.64.0.1", "172.31.0.1", "fd7a::1", "224.0.0.1"):
            address = Prefix.parse(outside).address
            self.assertFalse(any(p.contains(address) for p in prefixes), outside)

    def test_self(self):
        """C{autogroup:self} means the untagged devices of the source's owner."""
        policy = compiled(acls=[acl(["autogroup:member"], ["autogroup:self:*"])])
        for subject, friends in ((ALICE1, (ALICE1, ALICE2)), (BOB, (BOB,))):
            (rule,) = policy.rulesFor(subject)
            self.assertEqual(addresses(*friends), rule.sources)
            self.assertEqual(
                addresses(subject), tuple(text for text, _ in rule.destinations)
            )
        self.assertEqual((), policy.rulesFor(WEB))
        self.assertEqual(frozenset((2,)), policy.visible(ALICE1))
        self.assertEqual(frozenset(), policy.visible(BOB))
        self.assertEqual(frozenset(), policy.visible(WEB))

    def test_protocols(self):
        """Protocol names become numbers."""
        cases = {"tcp": (6,), "UDP": (17,), "icmp": (1, 58), "47": (47,), "": ()}
        for name, numbers in cases.items():
            policy = compiled(acls=[acl(["*"], ["*:*"], proto=name)])
            self.assertEqual(numbers, policy.rulesFor(WEB)[0].protocols)
        policy = compiled(acls=[acl(["*"], ["*:*"], proto=132)])
        self.assertEqual((132,), policy.rulesFor(WEB)[0].protocols)

    def test_grants(self):
        """A grant gives one rule for each protocol, and one for capabilities."""
        policy = compiled(
            grants=[
                {
                    "src": ["bob@"],
                    "dst": ["tag:web"],
                    "ip": ["443", "tcp:80-81", "tcp:90", "udp:*"],
                    "app": {"example.com/cap/x": [{"role": "reader"}]},
                }
            ]
        )
        sources = addresses(BOB)
        four, six = addresses(WEB)
        web = (PortRange(80, 81), PortRange(90, 90))
        self.assertEqual(
            (
                PacketRule(
                    sources,
                    ((four, PortRange(443, 443)), (six, PortRange(443, 443))),
                ),
                PacketRule(
                    sources,
                    tuple((text, ports) for text in (four, six) for ports in web),
                    (6,),
                ),
                PacketRule(sources, ((four, ALL_PORTS), (six, ALL_PORTS)), (17,)),
                CapabilityRule(
                    sources,
                    (f"{four}/32", f"{six}/128"),
                    {"example.com/cap/x": ({"role": "reader"},)},
                ),
            ),
            policy.rulesFor(WEB),
        )
        self.assertEqual((), policy.rulesFor(ROUTER))

    def test_companions(self):
        """Who may use a relay learns that it is one, and so with shared drives."""
        four, six = addresses(WEB)
        for name, companion in {
            "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
            "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
        }.items():
            grant = {"src": ["bob@"], "dst": ["tag:web"], "app": {name: [{}]}}
            policy = compiled(grants=[grant])
            (theirs,) = policy.rulesFor(BOB)
            bob4, bob6 = addresses(BOB)
            self.assertEqual(
                CapabilityRule(
                    (four, six), (f"{bob4}/32", f"{bob6}/128"), {companion: ()}
                ),
                theirs,
            )
            (own,) = policy.rulesFor(WEB)
            self.assertEqual([name], list(own.capabilities))
            self.assertEqual((), policy.rulesFor(ROUTER))
        grant["dst"] = ["autogroup:self"]
        (_, companion) = compiled(grants=[grant]).rulesFor(BOB)
        self.assertIn(bob4, companion.sources)

    def test_capabilityTargets(self):
        """Capabilities apply to a node's own addresses, whatever names them."""
        for target, expected in {
            "*": ("100.64.0.4/32", "fd7a:115c:a1e0::4/128"),
            "100.64.0.0/24": ("100.64.0.4/32",),
            "10.0.0.0/8": None,
        }.items():
            policy = compiled(
                grants=[{"src": ["*"], "dst": [target], "app": {"c": []}}]
            )
            found = policy.rulesFor(WEB)
            targets = found[0].destinations if found else None
            self.assertEqual(expected, targets, target)


class VisibilityTests(SynchronousTestCase):
    """Tests for which peers a node is told of."""

    def test_eitherDirection(self):
        """A rule makes its two ends visible to each other, and nobody else."""
        policy = compiled(acls=[acl(["bob@"], ["tag:web:80"])])
        self.assertEqual(frozenset((4,)), policy.visible(BOB))
        self.assertEqual(frozenset((3,)), policy.visible(WEB))
        self.assertEqual(frozenset(), policy.visible(ALICE1))

    def test_allowAll(self):
        """With the default policy all see all but themselves."""
        policy = CompiledPolicy(Policy.allowAll(), ALL)
        self.assertEqual(frozenset((1, 2, 3, 4, 6)), policy.visible(ROUTER))


class AttributeTests(SynchronousTestCase):
    """Tests for node attributes, tag owners and approvers."""

    def test_attributes(self):
        """Attributes of all matching entries are joined."""
        policy = compiled(
            nodeAttrs=[
                {"target": ["*"], "attr": ["everywhere"]},
                {"target": ["tag:web"], "attr": ["funnel"], "app": {"n": [1]}},
                {"target": ["100.64.0.4"], "app": {"n": [2]}},
            ]
        )
        self.assertEqual(
            {"everywhere": (), "funnel": (), "n": (1, 2)}, policy.attributes(WEB)
        )
        self.assertEqual({"everywhere": ()}, policy.attributes(BOB))

    def test_tagOwners(self):
        """A tag may be given by its owners, and by who has it already."""
        policy = compiled(
            groups={"group:ops": ["bob@"]},
            tagOwners={
                "tag:web": ["group:ops"],
                "tag:child": ["tag:web"],
                "tag:none": [],
            },
        )
        self.assertTrue(policy.mayHaveTag("tag:web", BOB))
        self.assertFalse(policy.mayHaveTag("tag:web", ALICE1))
        self.assertTrue(policy.mayHaveTag("tag:child", WEB))
        self.assertTrue(policy.mayHaveTag("tag:web", WEB))
        for tag in ("tag:none", "tag:unknown"):
            self.assertFalse(policy.mayHaveTag(tag, BOB))

    def test_approvers(self):
        """Routes inside an approved prefix, and exits, are approved by owners."""
        policy = compiled(
            autoApprovers={
                "routes": {"10.0.0.0/8": ["tag:router"]},
                "exitNode": ["tag:exit"],
            }
        )
        inside, outside = Prefix.parse("10.1.0.0/16"), Prefix.parse("0.0.0.0/1")
        self.assertTrue(policy.approves(inside, ROUTER))
        self.assertFalse(policy.approves(inside, EXIT))
        self.assertFalse(policy.approves(outside, ROUTER))
        self.assertTrue(policy.approves(Prefix.parse("::/0"), EXIT))
        self.assertFalse(policy.approves(Prefix.parse("::/0"), ROUTER))


class ShellTests(SynchronousTestCase):
    """Tests for the ssh section."""

    def rules(self, subject, **rule):
        """What a node is told of one rule."""
        rule = {"action": "accept", "src": ["*"], "users": ["root"], **rule}
        return shellRules(parsePolicy(json.dumps({"ssh": [rule]})), subject, ALL)

    def who(self, *subjects):
        """Nodes as principals."""
        return [{"nodeIP": address} for address in addresses(*subjects)]

    def test_destinations(self):
        """A rule is told only to the nodes that it means."""
        [rule] = self.rules(WEB, dst=["tag:web"], src=["bob@"])
        self.assertEqual(self.who(BOB), rule["principals"])
        self.assertEqual({"root": "root"}, rule["sshUsers"])
        self.assertTrue(rule["action"]["accept"])
        self.assertNotIn("acceptEnv", rule)
        self.assertEqual([], self.rules(ROUTER, dst=["tag:web"]))
        self.assertEqual([], self.rules(WEB, dst=["tag:web"], src=["carol@"]))

    def test_anybody(self):
        """A rule for all says so."""
        [rule] = self.rules(WEB, dst=["*"])
        self.assertEqual([{"any": True}], rule["principals"])

    def test_self(self):
        """C{autogroup:self} lets the owner's own devices in."""
        for source in ("*", "autogroup:member"):
            [rule] = self.rules(ALICE1, dst=["autogroup:self"], src=[source])
            self.assertEqual(self.who(ALICE1, ALICE2), rule["principals"])
            self.assertEqual([], self.rules(WEB, dst=["autogroup:self"], src=[source]))

    def test_users(self):
        """Ordinary users keep their names; root is only let in by name."""
        for users, told in (
            (["autogroup:nonroot"], {"*": "=", "root": ""}),
            (["autogroup:nonroot", "root"], {"*": "=", "root": "root"}),
            (["root", "autogroup:nonroot"], {"*": "=", "root": "root"}),
            (["web"], {"web": "web"}),
        ):
            [rule] = self.rules(WEB, dst=["*"], users=users)
            self.assertEqual(told, rule["sshUsers"])

    def test_environment(self):
        """Patterns of environment variables are passed on."""
        [rule] = self.rules(WEB, dst=["*"], acceptEnv=["GIT_*"])
        self.assertEqual(["GIT_*"], rule["acceptEnv"])

    def test_check(self):
        """What would need a person to log in again is refused, not waved through."""
        [rule] = self.rules(WEB, dst=["*"], action="check", checkPeriod="12h")
        self.assertTrue(rule["action"]["reject"])
        self.assertNotIn("accept", rule["action"])


class PolicyTestsTests(SynchronousTestCase):
    """Tests for the tests section."""

    def check(self, tests, subjects=ALL):
        """Run tests against one fixed policy."""
        document = {
            "groups": {"group:ops": ["bob@"], "group:none": []},
            "acls": [
                acl(["group:ops"], ["tag:web:80"]),
                acl(["autogroup:member"], ["autogroup:internet:*"]),
                acl(["autogroup:member"], ["10.1.0.0/16:*"], proto="tcp"),
            ],
            "tests": tests,
        }
        checkTests(parsePolicy(json.dumps(document)), subjects)

    def test_passing(self):
        """Tests that hold raise nothing, whether or not such nodes exist."""
        tests = [
            {"src": "bob@", "accept": ["tag:web:80"], "deny": ["tag:web:81"]},
            {"src": "group:ops", "accept": ["tag:web:80"]},
            {"src": "carol@x", "deny": ["tag:web:80"]},
            {"src": "tag:web", "deny": ["bob@:80", "autogroup:tagged:80"]},
            {"src": "autogroup:member", "accept": ["autogroup:internet:443"]},
            {"src": "bob@", "proto": "tcp", "accept": ["10.1.2.3:22"]},
            {"src": "bob@", "proto": "udp", "deny": ["10.1.2.3:22"]},
            {"src": "100.64.0.3", "accept": ["100.64.0.4:80"]},
        ]
        self.check(tests)
        self.check(tests[:-1], subjects=())

    def test_failing(self):
        """A test that does not hold names its place and what happened."""
        cases = [
            ({"accept": ["tag:web:80"]}, "tests[0].accept[0]", "is refused"),
            ({"deny": ["10.1.2.3:1"]}, "tests[0].deny[0]", "is allowed"),
        ]
        for test, path, words in cases:
            error = self.assertRaises(
                PolicyError, self.check, [{"src": "alice@example.com", **test}]
            )
            self.assertIn(path, str(error))
            self.assertIn(words, str(error))

    def test_emptyGroup(self):
        """A group without users is let nowhere."""
        self.assertRaises(
            PolicyError,
            self.check,
            [{"src": "group:none", "accept": ["10.1.2.3:1"]}],
        )
