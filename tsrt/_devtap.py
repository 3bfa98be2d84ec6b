"""
C{twistd tsrt-devtailnet}: a whole tailnet's servers on this machine.

It runs a control server, DERP relays and STUN servers, by default on loopback,
and says how clients join.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet.interfaces import IReactorCore
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from tsrt.errors import ConfigError, TSRTError
from tsrt.keys import Secret
from tsrt.testing.devtailnet import DevSettings, DevTailnet
from tsrt.testing.policy import parsePolicy

MAX_REGIONS = 20
"""How many relay regions may be asked for."""


class Options(UsageOptions):
    """The command line of C{twistd tsrt-devtailnet}."""

    synopsis = "[options]"
    longdesc = (
        "Runs a control server, DERP relays and STUN servers for development and "
        "tests. Nothing is kept: every start is a new tailnet. Anybody who reaches "
        "the ports and knows the auth key can join, so stay on loopback unless "
        "the network is yours."
    )

    optFlags = [
        ["approval", None, "Have an administrator approve each machine."],
        ["certificates", None, "Let nodes ask for certificates for their names."],
    ]

    optParameters = [
        ["port", "p", 0, "TCP port of the control server; 0 picks one.", int],
        ["interface", "i", "127.0.0.1", "Address to listen at."],
        ["host", None, "", "Name or address that clients are told; by default --interface."],
        ["derp-regions", None, 1, "How many DERP relays to run.", int],
        ["authkey", None, "", "Reusable auth key to accept; made up by default."],
        ["policy", None, "", "File with the tailnet's policy; all may talk by default."],
        ["domain", None, "tailnet.test", "DNS suffix of the nodes."],
        ["auto-login", None, "", "Let machines in without asking, as this user."],
        ["keyfile", None, "", "File to write the auth key to, while running."],
        ["print-json", None, "", "File to describe the running servers in, for scripts."],
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self["users"] = []

    def opt_user(self, name: str) -> None:
        """A user to have; may be given several times. Without any, there is 'user'."""
        self["users"].append(name)

    def postOptions(self) -> None:
        """Check what the options mean."""
        if not 0 <= self["port"] <= 65535:
            raise UsageError("--port is a number up to 65535")
        if not 0 <= self["derp-regions"] <= MAX_REGIONS:
            raise UsageError(f"--derp-regions is a number up to {MAX_REGIONS}")
        users = tuple(self["users"]) or ("user",)
        policy = self._policy()
        if self["auto-login"] and self["auto-login"] not in users:
            raise UsageError("--auto-login is none of the users")
        self.settings = DevSettings(
            port=self["port"],
            interface=self["interface"],
            host=self["host"],
            regions=self["derp-regions"],
            authKey=Secret(self["authkey"]),
            policy=policy,
            domain=self["domain"].strip("."),
            users=users,
            autoLogin=self["auto-login"],
            approval=bool(self["approval"]),
            certificates=bool(self["certificates"]),
            keyFile=_path(self["keyfile"]),
            jsonFile=_path(self["print-json"]),
        )
        if not self.settings.domain:
            raise UsageError("--domain is empty")

    def _policy(self) -> str:
        """The text of the policy, read once to see whether it is good."""
        if not self["policy"]:
            return ""
        try:
            text = Path(self["policy"]).expanduser().read_text("utf-8")
            parsePolicy(text)
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            raise UsageError(f"--policy {self['policy']}: {error}") from None
        return text


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def makeService(options: Options, reactor: object | None = None) -> DevTailnet:
    """
    Make the service that C{twistd} runs.

    @param options: the parsed command line.
    @param reactor: where to run; the global reactor by default.
    @raise UsageError: when the settings are impossible.
    """
    if reactor is None:
        from twisted.internet import reactor as globalReactor

        reactor = globalReactor

    def giveUp() -> None:
        if IReactorCore.providedBy(reactor):
            reactor.stop()

    try:
        return DevTailnet(reactor, options.settings, giveUp=giveUp)
    except TSRTError as error:
        raise UsageError(error.describe()) from None
