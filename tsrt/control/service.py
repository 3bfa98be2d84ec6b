"""
The control client as a service: logged in, with a map, and up to date.

Three loops share one gate: the login, the map, and the updates about us.  The
login opens the gate of the other two.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tsrt.control.api import ControlAPI, FeatureAnswer
from tsrt.control.c2n import C2NHandler, C2NSources
from tsrt.control.connection import ControlConnection
from tsrt.control.dial import ControlDialer
from tsrt.control.eventual import EventualQueue
from tsrt.control.expirywatch import ExpiryWatch
from tsrt.control.keyfetch import KeyFetcher
from tsrt.control.loginmachine import LoginState
from tsrt.control.maploop import MapLoop
from tsrt.control.observer import ControlObserver
from tsrt.control.pings import PingAnswerer, Pinger, noPinger
from tsrt.control.plainhttp import PlainHTTP
from tsrt.control.refusals import classifyHTTP
from tsrt.control.registration import Registration
from tsrt.control.selfreport import SelfReport, withDisco
from tsrt.control.settings import ControlSettings, Identity, LockSigner, LoginInfo
from tsrt.control.status import ControlStatus
from tsrt.control.steps import StepLog
from tsrt.control.updates import UpdateLoop
from tsrt.errors import (
    ClientTooOld,
    ControlError,
    ControlHTTPError,
    ControlProtocolError,
    NotRunning,
    ProtocolError,
    TSRTError,
)
from tsrt.interfaces import IStreamDialer
from tsrt.keys import DiscoPublic, NodePublic, Secret
from tsrt.tailcfg import (
    Hostinfo,
    MapResponse,
    NetInfo,
)
from tsrt.tailcfg.capabilities import CAPABILITY_VERSION

_log = Logger(namespace="tsrt.control")

_OPEN = frozenset(
    (
        LoginState.REGISTERING,
        LoginState.NEEDS_LOGIN,
        LoginState.NEEDS_APPROVAL,
        LoginState.REGISTERED,
        LoginState.EXPIRED,
    )
)


class ControlService(Service):
    """
    Keeps a node logged in and its map up to date.

    @ivar steps: what was tried so far; others may add steps of their own.
    @ivar identity: who the node is.
    """

    name = "control"

    def __init__(
        self,
        reactor: IReactorTime,
        settings: ControlSettings,
        identity: Identity,
        *,
        dialer: IStreamDialer,
        observer: ControlObserver,
        hostinfo: Hostinfo,
        pinger: Pinger = noPinger,
        c2n: C2NSources | None = None,
        signer: LockSigner | None = None,
        randbytes: Callable[[int], bytes] = os.urandom,
        wallTime: Callable[[], float] = time.time,
        version: int = CAPABILITY_VERSION,
    ) -> None:
        """
        @param reactor: the clock.
        @param settings: what the user wants.
        @param identity: who the node is so far.
        @param dialer: makes the connections.
        @param observer: told what happens.
        @param hostinfo: what is known about this machine.
        @param pinger: pings other nodes when the server wants to know.
        @param c2n: where answers to the server's requests come from.
        @param signer: signs node keys for the tailnet lock.
        @param randbytes: the source of secret random bytes.
        @param wallTime: tells the time in seconds since 1970.
        @param version: our capability version.
        """
        self._reactor = reactor
        self._settings = settings
        self._dialer = dialer
        self._observer = observer
        self._randbytes = randbytes
        self._wallTime = wallTime
        self._version = version
        self._report = SelfReport(settings, hostinfo)
        self._queue = EventualQueue(reactor)
        self._c2n = C2NHandler(c2n or C2NSources())
        self._pinger = pinger
        self._signer = signer
        self._paused = False
        self._resetRun()
        self._stopping: Deferred[None] | None = None
        self.identity = identity
        self.steps = StepLog(reactor)
        self._assemble()

    def _resetRun(self) -> None:
        """What holds for one run, from start to stop."""
        self._hadMap = False
        self._failed = False
        self._error: TSRTError | None = None
        self._shownURL = ""
        self._openedURL = ""
        self._wasTrying = False

    def _assemble(self) -> None:
        """Make the parts of a run."""
        reactor, url, steps = self._reactor, self._settings.server, self.steps
        keys = KeyFetcher(
            reactor,
            self._dialer,
            url,
            steps=steps,
            wallTime=self._wallTime,
            version=self._version,
        )
        self._controlDialer = ControlDialer(
            reactor,
            self._dialer,
            url,
            self.identity.machineKey,
            randbytes=self._randbytes,
            steps=steps,
            version=self._version,
            forceTLS=self._settings.forceTLS,
        )
        self._connection = ControlConnection(
            reactor, self._controlDialer, keys.fetch, url
        )
        self.api = ControlAPI(
            reactor, self._connection, wallTime=self._wallTime, version=self._version
        )
        self._registration = Registration(
            reactor,
            self.api,
            settings=self._settings,
            identity=self.identity,
            hostinfo=lambda: self._report.hostinfo,
            events=self,
            steps=steps,
            randbytes=self._randbytes,
            signer=self._signer,
        )
        self._maps = MapLoop(
            reactor,
            request=lambda: self._report.mapRequest(
                self._version, self.identity, stream=True
            ),
            openMap=self.api.openMap,
            started=lambda resumed: self._tell(self._observer.mapStarted, resumed),
            deliver=self._mapReceived,
            alive=self._aliveChanged,
            trouble=self._mapFailed,
            unknownNode=self._nodeUnknown,
            steps=steps,
            randbytes=self._randbytes,
        )
        self._updates = UpdateLoop(
            reactor,
            send=lambda: self.api.updateMap(
                self._report.mapRequest(self._version, self.identity, stream=False)
            ),
            trouble=self.trouble,
            # Some servers leave the map stream of a deleted node open.
            unknownNode=self._nodeUnknown,
            randbytes=self._randbytes,
        )
        self._expiry = ExpiryWatch(
            reactor,
            wallTime=self._wallTime,
            expired=self._registration.keyExpired,
            good=self._registration.mapIsGood,
        )
        self._pings = PingAnswerer(
            reactor,
            self.api,
            PlainHTTP(reactor, self._dialer, url, steps=StepLog(reactor)),
            c2n=self._c2n,
            pinger=self._pinger,
        )

    # -- start and stop ----------------------------------------------------------------

    def startService(self) -> None:
        """Log in, and keep at it."""
        if self.running:
            return
        super().startService()
        self._resetRun()
        self._assemble()
        if not self._paused:
            self._registration.begin()

    def stopService(self) -> Deferred[None]:
        """
        Close everything; the server is told nothing more.

        @return: fires when nothing is left.
        """
        if not self.running:
            return succeed(None) if self._stopping is None else self._whenStopped()
        super().stopService()
        self._registration.stop()
        self._updates.stop()
        self._pings.stop()
        self._maps.stop()
        self._expiry.stop()
        self._queue.clear()
        closing = self._connection.close()
        if not closing.called:
            self._stopping = closing
            closing.addCallback(self._stopped)
        return closing

    def _stopped(self, result: None) -> None:
        self._stopping = None

    def _whenStopped(self) -> Deferred[None]:
        """A second stop waits for the first one."""
        waiter: Deferred[None] = Deferred()
        if self._stopping is not None:
            self._stopping.addCallback(waiter.callback)
        return waiter

    def setPaused(self, paused: bool) -> None:
        """
        Close or open the gate of all loops.

        @param paused: whether to do without the server for now, such as while
            there is no network.
        """
        if paused == self._paused:
            return
        self._paused = paused
        if not self.running:
            return
        if paused:
            self._wasTrying = self._registration.state in _OPEN - {
                LoginState.REGISTERED
            }
            if self._wasTrying:
                self._registration.stop()
            self._gate()
            self._connection.drop("the control client was paused")
        elif self._wasTrying or self._registration.state is LoginState.NEEDS_KEY:
            self._registration.begin()
        else:
            self._gate()

    def reconnect(self, reason: str) -> None:
        """
        Make a new connection, such as after the network changed.

        @param reason: for the log and for calls under way.
        """
        if not self.running or self._paused:
            return
        _log.info("connecting to the control server anew: {reason}", reason=reason)
        hadMaps = self._maps.isRunning
        # Stopped first, so that nobody takes the cut for trouble.
        self._maps.stop()
        self._updates.stop()
        self._connection.drop(reason)
        if hadMaps:
            self._maps.restart(fresh=False)
        self._gate()

    def _gate(self) -> None:
        """Let map and updates run exactly while they may."""
        registration = self._registration
        if (
            self.running
            and not self._paused
            and not self._failed
            and registration.keyAccepted
            and registration.state in _OPEN
        ):
            self._maps.start()
            self._updates.start()
        else:
            self._maps.stop()
            self._updates.stop()

    # -- what callers ask for ------------------------------------------------------------

    @property
    def status(self) -> ControlStatus:
        """How it is going."""
        return ControlStatus(
            state=self._registration.state,
            loginURL=self._registration.loginURL,
            isConnected=self._connection.isConnected,
            isMapAlive=self._maps.isAlive,
            error=self._error,
            steps=self.steps.steps(),
        )

    def login(self, authKey: Secret | None = None) -> Deferred[LoginInfo]:
        """
        Log in again with a new node key.

        @param authKey: used from now on instead of the one of the settings.
        @return: see L{Registration.login}.
        """
        self._failed = False
        return self._registration.login(authKey)

    def logout(self) -> Deferred[None]:
        """
        Have the server forget or expire this node.

        The service goes on running and the keys stay; see
        L{Registration.logout}.
        """
        if not self.running:
            return fail(NotRunning("the control client is not running"))
        return self._registration.logout()

    def setHostinfo(self, hostinfo: Hostinfo) -> None:
        """Tell the server about this machine, if that is news."""
        if self._report.setHostinfo(hostinfo):
            self._updates.trigger()

    def setNetInfo(self, netInfo: NetInfo) -> None:
        """Tell the server about the network, if that is news."""
        if self._report.setNetInfo(netInfo):
            self._updates.trigger()

    def setEndpoints(self, endpoints: Iterable[tuple[str, int]]) -> None:
        """
        Tell the server where we may be reached, if that is news.

        @param endpoints: C{address:port} and the type of each.
        """
        if self._report.setEndpoints(endpoints):
            self._updates.trigger()

    def setLockHead(self, head: str) -> None:
        """Tell the server the head of the tailnet lock's log, if that is news."""
        if self._report.setLockHead(head):
            self._updates.trigger()

    def setDiscoKey(self, public: DiscoPublic) -> None:
        """Tell the server our key for finding paths, if that is news."""
        if public != self.identity.discoPublic:
            self.identity = withDisco(self.identity, public)
            self._registration.identity = self.identity
            self._updates.trigger()

    def setDNS(self, name: str, recordType: str, value: str) -> Deferred[None]:
        """Publish a DNS record; see L{ControlAPI.setDNS}."""
        return self.api.setDNS(self._nodePublic(), name, recordType, value)

    def idToken(self, audience: str) -> Deferred[str]:
        """Get a token that proves who this node is; see L{ControlAPI.idToken}."""
        return self.api.idToken(self._nodePublic(), audience)

    def queryFeature(self, feature: str) -> Deferred[FeatureAnswer]:
        """Ask about a feature; see L{ControlAPI.queryFeature}."""
        return self.api.queryFeature(self._nodePublic(), feature)

    def _nodePublic(self) -> NodePublic:
        key = self.identity.nodeKey
        return NodePublic.zero() if key is None else key.public()

    # -- what the login tells (see RegistrationEvents) ------------------------------------

    def stateChanged(self, state: LoginState) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        _log.debug("login: {state}", state=state.value)
        self._gate()

    def identityChanged(self, identity: Identity) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        # At once, and with the right to veto: nothing is used unsaved.
        self._observer.identityChanged(identity)

    def nodeKeyChanged(self, identity: Identity) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        isNew = identity.nodeKey != self.identity.nodeKey
        self._expiry.stop()
        self.identity = identity
        self._tell(self._observer.nodeKeyChanged, identity)
        if self._maps.isRunning and isNew:
            self._maps.restart(fresh=True)
        self._updates.trigger()
        self._gate()

    def loginURL(self, url: str) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        if url != self._shownURL:
            self._shownURL = url
            self._tell(self._observer.loginURL, url)

    def approvalNeeded(self) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        self._tell(self._observer.approvalNeeded)

    def registered(self, login: LoginInfo) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        self._shownURL = ""
        self._tell(self._observer.registered, login)

    def trouble(self, error: TSRTError) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        self._error = error
        _log.debug("{error}; trying again", error=error.describe())
        self._tell(self._observer.trouble, error)

    def failed(self, error: TSRTError) -> None:
        """See L{tsrt.control.registration.RegistrationEvents}."""
        self._error = error
        self._failed = True
        self._gate()
        self._tell(self._observer.failed, error)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        self._queue.add(call, *arguments)

    # -- what the map tells ---------------------------------------------------------------

    def _mapReceived(self, response: MapResponse) -> None:
        self._expiry.noteTime(response)
        if response.controlDialPlan:
            self._controlDialer.setDialPlan(response.controlDialPlan)
        if response.pingRequest:
            self._pings.answer(response.pingRequest)
        url = response.popBrowserURL
        if isinstance(url, str) and url and url != self._openedURL:
            self._openedURL = url
            self._tell(self._observer.openURL, url)
        if response.debug and response.debug.exit is not None:
            _log.warn("the control server asks this process to exit; it does not")
        if response.keepAlive is not True:
            self._hadMap = True
            self._error = None
            self._queue.add(self._handOn, response)
        if response.node and response.node.key == self._nodePublic().text():
            self._expiry.look(response.node)

    def _handOn(self, response: MapResponse) -> None:
        try:
            self._observer.mapResponse(response)
        except ProtocolError as error:
            # The picture may be wrong from here on: get a whole one.
            self._maps.abandon(ControlProtocolError(str(error)))

    def _aliveChanged(self, alive: bool) -> None:
        self._tell(self._observer.mapAlive, alive)

    def _mapFailed(self, error: ControlError) -> None:
        problem: TSRTError = error
        if isinstance(error, ControlHTTPError):
            classified = classifyHTTP(error)
            if isinstance(classified, ClientTooOld):
                problem = classified
        # Whoever has a map keeps it: the network may pass through a place
        # where something else answers for the server.
        if problem.isPermanent and not self._hadMap:
            self.failed(problem)
        else:
            self.trouble(problem)

    def _nodeUnknown(self, error: ControlError) -> None:
        _log.info("the control server does not know this node; registering afresh")
        self._registration.keyForgotten()
        self._gate()
