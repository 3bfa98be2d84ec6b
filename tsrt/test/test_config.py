"""Tests for L{tsrt.config}."""

from __future__ import annotations

from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from tsrt.config import NodeConfig, parseDuration, sanitizeHostname
from tsrt.errors import ConfigError
from tsrt.keys import Secret
from tsrt.settings import _KINDS


class NodeConfigTests(SynchronousTestCase):
    """L{NodeConfig} checks what it is given."""

    def wrong(self, **settings: object) -> str:
        """The message of the error that C{settings} cause."""
        error = self.assertRaises(ConfigError, NodeConfig, **settings)
        return error.describe()

    def test_defaults(self) -> None:
        """Without settings a node joins Tailscale's own control server."""
        config = NodeConfig()
        self.assertEqual(config.controlURL, "https://controlplane.tailscale.com")
        self.assertTrue(config.hostname)
        self.assertFalse(config.ephemeral)
        self.assertEqual(config.startupTimeout, 60.0)

    def test_T_secrets_authKeyHidden(self) -> None:
        """The auth key is in no repr."""
        config = NodeConfig(authKey="tskey-auth-hush")
        self.assertNotIn("hush", repr(config))
        self.assertNotIn("hush", str(config.authKey))
        self.assertEqual(config.resolvedAuthKey(), Secret("tskey-auth-hush"))

    def test_wrongValues(self) -> None:
        """Each wrong value is an error that says what is wrong."""
        self.assertIn("http:// or https://", self.wrong(controlURL="ftp://x"))
        self.assertIn("is not a URL", self.wrong(controlURL="https://[::1"))
        self.assertIn("a query", self.wrong(controlURL="https://x/?a=b"))
        self.assertIn("'tag:'", self.wrong(advertiseTags=["server"]))
        self.assertIn("not a UDP port", self.wrong(port=70000))
        self.assertIn("no letter", self.wrong(hostname="!!!"))
        self.assertIn("negative", self.wrong(startupTimeout=-1))
        self.assertIn("negative", self.wrong(keepAlive=-1))

    def test_trailingSlash(self) -> None:
        """A slash at the end of the login server's URL means nothing."""
        self.assertEqual(NodeConfig(controlURL="https://x/").controlURL, "https://x")

    def test_authKeyFile(self) -> None:
        """C{file:} reads the key; white space around it is dropped."""
        path = Path(self.mktemp())
        path.write_text("  tskey-1\n\n")
        config = NodeConfig(authKey=f"file:{path}")
        self.assertEqual(config.resolvedAuthKey(), Secret("tskey-1"))

    def test_authKeyFileWrong(self) -> None:
        """A key file that is missing or empty is an error that names it."""
        path = Path(self.mktemp())
        config = NodeConfig(authKey=f"file:{path}")
        error = self.assertRaises(ConfigError, config.resolvedAuthKey)
        self.assertEqual(
            str(error),
            f"the auth key file {path} cannot be read: No such file or directory",
        )
        path.write_text("\n")
        error = self.assertRaises(ConfigError, config.resolvedAuthKey)
        self.assertIn("is empty", str(error))

    def test_defaultStateDirContainsHostname(self) -> None:
        """Two nodes of one user do not share a directory by default."""
        one = NodeConfig(hostname="One").resolvedStateDir()
        two = NodeConfig(hostname="two").resolvedStateDir()
        self.assertEqual((one.name, two.name), ("one", "two"))

    def test_environment(self) -> None:
        """The variables that Tailscale users know are read."""
        config = NodeConfig.fromEnvironment(
            {
                "TS_AUTHKEY": "k1",
                "TS_AUTH_KEY": "k2",
                "TS_CONTROL_URL": "http://127.0.0.1:8080/",
                "TS_HOSTNAME": "box",
                "TS_STATE_DIR": "/var/lib/x",
                "TS_BOOT_TIMEOUT": "1m30s",
                "TSNET_FORCE_LOGIN": "1",
                "TS_FORCE_NOISE_443": "true",
                "HTTPS_PROXY": "http://proxy:3128",
            }
        )
        self.assertEqual(config.authKey, Secret("k1"))
        self.assertEqual(config.controlURL, "http://127.0.0.1:8080")
        self.assertEqual(config.hostname, "box")
        self.assertEqual(config.stateDir, Path("/var/lib/x"))
        self.assertEqual(config.startupTimeout, 90.0)
        self.assertTrue(config.forceReauth)
        self.assertTrue(config.forceHTTPS)
        self.assertIn("proxy", repr(config.proxy))

    def test_otherSpellingOfAuthKey(self) -> None:
        """C{TS_AUTH_KEY} is read where C{TS_AUTHKEY} is not set."""
        config = NodeConfig.fromEnvironment({"TS_AUTHKEY": "", "TS_AUTH_KEY": "k2"})
        self.assertEqual(config.authKey, Secret("k2"))

    def test_relayOnly(self) -> None:
        """Either variable that forbids direct paths does."""
        for on in ("TS_DEBUG_ALWAYS_USE_DERP", "TS_DEBUG_NEVER_DIRECT_UDP"):
            self.assertTrue(NodeConfig.fromEnvironment({on: "1"}).relayOnly)
        self.assertFalse(
            NodeConfig.fromEnvironment({"TS_DEBUG_ALWAYS_USE_DERP": "0"}).relayOnly
        )

    def test_portMapping(self) -> None:
        """The variables that forbid port mapping, and UPnP alone."""
        config = NodeConfig.fromEnvironment({"TS_DISABLE_PORTMAPPER": "1"})
        self.assertEqual((config.portMapping, config.upnp), (False, True))
        config = NodeConfig.fromEnvironment({"TS_DISABLE_UPNP": "true"})
        self.assertEqual((config.portMapping, config.upnp), (True, False))
        config = NodeConfig.fromEnvironment({"TS_DISABLE_UPNP": "0"})
        self.assertTrue(config.upnp)

    def test_staticEndpoints(self) -> None:
        """Endpoints are addresses with ports."""
        good = ["203.0.113.7:1", "[2001:db8::1]:2"]
        self.assertEqual(NodeConfig(staticEndpoints=good).staticEndpoints, tuple(good))
        for bad in ("203.0.113.7", "host:1", "2001:db8::1:2", "203.0.113.7:99999"):
            self.assertRaises(ConfigError, NodeConfig, staticEndpoints=[bad])

    def test_argumentsBeatEnvironment(self) -> None:
        """Arguments win, and C{None} is no argument."""
        config = NodeConfig.fromEnvironment(
            {"TS_HOSTNAME": "box", "TS_AUTHKEY": "k"}, hostname="mine", authKey=None
        )
        self.assertEqual(config.hostname, "mine")
        self.assertEqual(config.authKey, Secret("k"))

    def test_wrongVariables(self) -> None:
        """A variable with a value that cannot be is an error."""
        for name, value in (
            ("TS_BOOT_TIMEOUT", "soon"),
            ("TSNET_FORCE_LOGIN", "perhaps"),
            ("TS_CONTROL_URL", "nonsense"),
        ):
            self.assertRaises(ConfigError, NodeConfig.fromEnvironment, {name: value})

    def test_file(self) -> None:
        """A TOML file has the attributes as keys; arguments win."""
        path = Path(self.mktemp())
        path.write_text(
            'hostname = "box"\nadvertiseTags = ["tag:a"]\nephemeral = true\n'
            'authKey = "k"\nproxy = "http://proxy:3128"\n'
        )
        config = NodeConfig.fromFile(path, hostname="other")
        self.assertEqual(config.hostname, "other")
        self.assertEqual(config.advertiseTags, ("tag:a",))
        self.assertTrue(config.ephemeral)
        self.assertIn("proxy", repr(config.proxy))

    def test_wrongFiles(self) -> None:
        """Files that cannot be used are errors that say why."""
        path = Path(self.mktemp())
        self.assertRaises(ConfigError, NodeConfig.fromFile, path)
        path.write_text("hostname = ")
        self.assertRaises(ConfigError, NodeConfig.fromFile, path)
        path.write_text("hostnam = 'x'")
        error = self.assertRaises(ConfigError, NodeConfig.fromFile, path)
        self.assertIn("hostnam", str(error))

    def test_wrongKindsInFiles(self) -> None:
        """A value of a wrong kind is an error that names its key, not a guess."""
        path = Path(self.mktemp())
        for line, words in (
            ("port = 'x'", "port must be a whole number"),
            ("port = true", "port must be a whole number"),
            ("hostname = 5", "hostname must be text"),
            ("authKey = 12345", "authKey must be text"),
            ("ephemeral = 'no'", "ephemeral must be true or false"),
            ("ephemeral = 0", "ephemeral must be true or false"),
            ("advertiseTags = 'tag:a'", "advertiseTags must be a list of texts"),
            ("advertiseTags = [5]", "advertiseTags must be a list of texts"),
            ("startupTimeout = '90s'", "startupTimeout must be a number"),
            ("proxy = 3128", "proxy must be text"),
        ):
            path.write_text(line)
            error = self.assertRaises(ConfigError, NodeConfig.fromFile, path)
            self.assertIn(words, str(error))
            self.assertNotIn("12345", str(error))

    def test_kindsOfEverySetting(self) -> None:
        """Every setting has a kind, so that none comes from a file unchecked."""
        self.assertEqual(set(_KINDS), {a.name for a in fields(NodeConfig)})

    def test_fileAndEnvironment(self) -> None:
        """Arguments beat the TS_ variables, which beat the file."""
        path = Path(self.mktemp())
        path.write_text('hostname = "file"\nport = 5\nstateDir = "/file"\n')
        environ = {
            "TS_AUTHKEY": "k",
            "TS_HOSTNAME": "variable",
            "TS_STATE_DIR": "/variable",
            "HTTPS_PROXY": "http://corporate:3128",
        }
        config = NodeConfig.fromFile(path, environ, hostname="argument")
        self.assertEqual(config.hostname, "argument")
        self.assertEqual(config.stateDir, Path("/variable"))
        self.assertEqual(config.port, 5)
        self.assertEqual(config.authKey, Secret("k"))
        self.assertIn("corporate", repr(config.proxy))
        path.write_text('proxy = "http://ours:3128"')
        config = NodeConfig.fromFile(path, environ)
        self.assertIn("ours", repr(config.proxy))
        self.assertNotIn("corporate", repr(config.proxy))

    def test_replace(self) -> None:
        """A copy differs in what was asked for only."""
        config = NodeConfig(hostname="a", port=5)
        changed = config.replace(hostname="b")
        self.assertEqual((changed.hostname, changed.port), ("b", 5))


class TextTests(SynchronousTestCase):
    """Names and durations."""

    def test_sanitizeHostname(self) -> None:
        """Names become DNS labels as Tailscale clients make them."""
        for name, label in (
            ("My Mac.local", "my-mac"),
            ("box.lan", "box"),
            ("a_b@c.d", "a-b-c-d"),
            ("-x-", "x"),
            ("ümläut", "mlut"),
            ("x" * 80, "x" * 63),
            ("!!!", ""),
        ):
            self.assertEqual(sanitizeHostname(name), label)

    def test_durations(self) -> None:
        """Durations are seconds, or numbers with units."""
        for text, seconds in (
            ("0", 0),
            ("90", 90),
            ("1.5s", 1.5),
            ("1m30s", 90),
            ("2h", 7200),
            ("500ms", 0.5),
        ):
            self.assertEqual(parseDuration(text), seconds)
        for text in ("", "s", "1x", "-1", "1 m"):
            self.assertRaises(ConfigError, parseDuration, text)
