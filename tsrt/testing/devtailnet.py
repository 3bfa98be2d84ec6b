"""
A whole tailnet's servers in one service: control, DERP relays and STUN.

It is what C{twistd tsrt-devtailnet} runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from attrs import define, field, frozen
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import (
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.errors import NotRunning, StateUnreadable
from tsrt.keys import Secret
from tsrt.tailcfg import DERPMap, DERPRegion
from tsrt.testing.certificates import selfSigned
from tsrt.testing.control import (
    ControlConfig,
    ControlServer,
    DNSSettings,
    RegistrationOptions,
)
from tsrt.testing.derp import DERPServer
from tsrt.testing.stun import STUNServer

_log = Logger(namespace="tsrt.devtailnet")

FIRST_REGION = 900
"""The number of the first relay region; these numbers are free for own use."""

_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@frozen(kw_only=True)
class DevSettings:
    """
    What L{DevTailnet} runs.

    @ivar port: TCP port of the control server; 0 picks one.
    @ivar interface: the address to listen at.
    @ivar host: what clients are told instead of it.
    @ivar regions: how many DERP relays to run.
    @ivar authKey: the reusable auth key; made up if empty.
    @ivar policy: the policy document; all may talk if empty.
    @ivar domain: the DNS suffix of the nodes.
    @ivar users: the login names of the users.
    @ivar autoLogin: the user that machines are let in as without asking.
    @ivar approval: whether machines need approval.
    @ivar certificates: whether nodes may ask for certificates.
    @ivar keyFile: where to write the auth key.
    @ivar jsonFile: where to describe the running servers.
    """

    port: int = 0
    interface: str = "127.0.0.1"
    host: str = ""
    regions: int = 1
    authKey: Secret = field(factory=lambda: Secret(""))
    policy: str = ""
    domain: str = "tailnet.test"
    users: tuple[str, ...] = ("user",)
    autoLogin: str = ""
    approval: bool = False
    certificates: bool = False
    keyFile: Path | None = None
    jsonFile: Path | None = None

    @property
    def address(self) -> str:
        """Where clients reach the servers."""
        return self.host or _WILDCARDS.get(self.interface, self.interface)


@define(eq=False)
class _Relay:
    """One relay region."""

    number: int
    derp: DERPServer
    stun: STUNServer

    def region(self, settings: DevSettings) -> DERPRegion:
        """What the DERP map says about it."""
        address = settings.address
        isV6 = ":" in address
        node = self.derp.node(
            self.number,
            address,
            ipv4="none" if isV6 else _literal(address),
            ipv6=address if isV6 else "none",
            stunPort=self.stun.port,
        )
        code = f"dev{self.number - FIRST_REGION + 1}"
        return DERPRegion(
            regionID=self.number, regionCode=code, regionName=code, nodes=[node]
        )


def _literal(address: str) -> str:
    """An IPv4 address as it is; of a name, nothing."""
    return address if address.replace(".", "").isdigit() else ""


class DevTailnet(MultiService):
    """
    The servers of a tailnet, on one machine.

    @ivar settings: what runs.
    @ivar control: the control server.
    @ivar authKey: the reusable auth key, as text.
    """

    def __init__(
        self,
        reactor: object,
        settings: DevSettings,
        *,
        randbytes: Callable[[int], bytes] = os.urandom,
        giveUp: Callable[[], None] = lambda: None,
    ) -> None:
        """
        @param reactor: provides C{IReactorTCP}, C{IReactorUDP} and
            C{IReactorTime}.
        @param settings: what to run.
        @param randbytes: the source of secret random bytes.
        @param giveUp: called when the servers cannot be started.
        @raise ConfigError: when the settings are impossible.
        """
        MultiService.__init__(self)
        self.settings = settings
        self._reactor = reactor
        self._giveUp = giveUp
        self._adminToken = Secret(randbytes(16).hex())
        self._ready: list[Deferred[str]] = []
        self._starting: Deferred[None] | None = None
        self._isReady = False
        self._written: list[Path] = []
        self.control = ControlServer(
            reactor,
            self._endpoint(settings.port),
            ControlConfig(
                domain=settings.domain,
                users=settings.users,
                registration=RegistrationOptions(
                    requireApproval=settings.approval, autoLogin=settings.autoLogin
                ),
                policy=settings.policy,
                dns=DNSSettings(certificates=settings.certificates),
                adminToken=self._adminToken,
                host=settings.host,
            ),
            randbytes=randbytes,
        )
        key = self.control.createAuthKey(text=settings.authKey.reveal(), reusable=True)
        self.authKey = key.text
        self._relays = [self._relay(number) for number in range(settings.regions)]

    def _relay(self, number: int) -> _Relay:
        settings = self.settings
        derp = DERPServer(
            cast(IReactorTime, self._reactor),
            self._endpoint(0),
            certificate=selfSigned([settings.address]),
        )
        stun = STUNServer(cast(IReactorUDP, self._reactor), 0, settings.interface)
        return _Relay(FIRST_REGION + number, derp, stun)

    def _endpoint(self, port: int) -> IStreamServerEndpoint:
        interface = self.settings.interface
        kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
        return kind(cast(IReactorTCP, self._reactor), port, interface=interface)

    # -- the service ------------------------------------------------------------------

    def startService(self) -> None:
        """Start the relays, then the control server; see L{whenReady}."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed)

    async def _start(self) -> None:
        for relay in self._relays:
            relay.stun.setServiceParent(self)
            relay.derp.setServiceParent(self)
        await gatherResults(
            [relay.derp.whenListening() for relay in self._relays], consumeErrors=True
        )
        self.control.setDERPMap(
            DERPMap(
                regions={
                    relay.number: relay.region(self.settings) for relay in self._relays
                },
                omitDefaultRegions=True,
            )
        )
        self.control.setServiceParent(self)
        url = await self.control.whenListening()
        self._writeFiles()
        for line in self._howToJoin():
            _log.info("{line}", line=line)
        self._tellReady(url)

    def _failed(self, reason: Failure) -> None:
        if self.running:
            _log.critical(
                "the development tailnet cannot start: {reason}", reason=reason.value
            )
            self._tellReady(reason)
            self._giveUp()

    def whenReady(self) -> Deferred[str]:
        """
        Wait until clients can join.

        @return: fires with the URL of the control server; fails with what kept
            it from starting.
        """
        ready: Deferred[str] = Deferred()
        self._ready.append(ready)
        if self._isReady:
            self._tellReady(self.control.url)
        return ready

    def _tellReady(self, outcome: str | Failure) -> None:
        self._isReady = isinstance(outcome, str)
        ready, self._ready = self._ready, []
        for waiter in ready:
            waiter.callback(outcome)

    def stopService(self) -> Deferred[None]:
        """Stop all servers and remove the files that describe them."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        starting, self._starting = self._starting, None
        self._isReady = False
        self._tellReady(Failure(NotRunning("the development tailnet was stopped")))
        stopping = maybeDeferred(super().stopService)
        if starting is not None and not starting.called:
            starting.cancel()
        await stopping
        for service in list(self):
            await maybeDeferred(cast(Service, service).disownServiceParent)
        written, self._written = self._written, []
        for path in written:
            path.unlink(missing_ok=True)

    # -- telling ----------------------------------------------------------------------

    def describe(self) -> dict[str, object]:
        """
        The running servers, as programs want to know them.

        @raise NotRunning: when they are not running.
        """
        return {
            "url": self.control.url,
            "authKey": self.authKey,
            "adminToken": self._adminToken.reveal(),
            "domain": self.settings.domain,
            "users": [user.login for user in self.control.users()],
            "controlKey": self.control.publicKey.text(),
            "derp": [
                {
                    "regionID": relay.number,
                    "host": self.settings.address,
                    "derpPort": relay.derp.port,
                    "stunPort": relay.stun.port,
                }
                for relay in self._relays
            ],
        }

    def _howToJoin(self) -> list[str]:
        url, key = self.control.url, self.authKey
        return [
            f"the development tailnet {self.settings.domain} is up at {url}",
            f"join: twistd -n tsrt --login-server {url} --authkey {key}",
            f"  or: tailscale up --login-server={url} --auth-key={key}",
        ]

    def _writeFiles(self) -> None:
        settings = self.settings
        if settings.keyFile is not None:
            self._write(settings.keyFile, self.authKey + "\n")
        if settings.jsonFile is not None:
            text = json.dumps(self.describe(), indent=2) + "\n"
            self._write(settings.jsonFile, text)

    def _write(self, path: Path, text: str) -> None:
        writePrivately(path, text)
        self._written.append(path)


def writePrivately(path: Path, text: str) -> None:
    """
    Replace a file at once by one that only its owner can read.

    @raise StateUnreadable: when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise StateUnreadable(f"{path} cannot be written: {error}") from None
