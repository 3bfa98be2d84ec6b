"""
Getting into the tailnet and staying in it.

L{Registration} joins the state machine, which decides, with the campaigns,
which talk to the server, and remembers who the node is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from tsrt.control.api import ControlAPI
from tsrt.control.campaign import LOGOUT_EXPIRY, Campaign, registerRequest
from tsrt.control.loginmachine import LoginCore, LoginMachine, LoginState, Why
from tsrt.control.settings import (
    ControlSettings,
    HostSource,
    Identity,
    LockSigner,
    LoginInfo,
)
from tsrt.control.steps import StepLog
from tsrt.errors import (
    ControlError,
    KeyExpired,
    LoggedOut,
    NotRunning,
    TSRTError,
)
from tsrt.keys import NodeKey, Secret

_log = Logger(namespace="tsrt.control")

LOGOUT_TIMEOUT = 30.0
"""Seconds that a logout may take."""

MOST_RENEWALS = 3
"""How often in a row an expired key is replaced without a map in between."""


class RegistrationEvents(Protocol):
    """Whom a registration tells what happens."""

    def stateChanged(self, state: LoginState) -> None:
        """The node stands otherwise with the server than before."""

    def identityChanged(self, identity: Identity) -> None:
        """Save C{identity}; errors end the login."""

    def nodeKeyChanged(self, identity: Identity) -> None:
        """The server has accepted the node key."""

    def loginURL(self, url: str) -> None:
        """A person has to open C{url}."""

    def approvalNeeded(self) -> None:
        """An administrator has to approve this machine."""

    def registered(self, login: LoginInfo) -> None:
        """The server has let the node in."""

    def trouble(self, error: TSRTError) -> None:
        """Something failed and will be tried again."""

    def failed(self, error: TSRTError) -> None:
        """The server refused for good."""


class Registration:
    """
    The login of one node.

    @ivar state: where the node stands.
    @ivar identity: who the node is.
    @ivar loginURL: what a person has to open now, or empty.
    @ivar keyAccepted: whether the server took C{identity}'s node key, so that
        it may ask for maps with it.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        api: ControlAPI,
        *,
        settings: ControlSettings,
        identity: Identity,
        hostinfo: HostSource,
        events: RegistrationEvents,
        steps: StepLog,
        randbytes: Callable[[int], bytes],
        signer: LockSigner | None = None,
    ) -> None:
        """
        @param reactor: the clock.
        @param api: the server.
        @param settings: what the user wants.
        @param identity: who the node is so far.
        @param hostinfo: what is known about this machine.
        @param events: told what happens.
        @param steps: where the steps are noted.
        @param randbytes: the source of secret random bytes.
        @param signer: signs node keys for the tailnet lock.
        """
        self._reactor = reactor
        self._api = api
        self._settings = settings
        self._authKey = settings.authKey
        self._hostinfo = hostinfo
        self._events = events
        self._steps = steps
        self._randbytes = randbytes
        self._signer = signer
        self._campaign: Deferred[None] | None = None
        self._begin: IDelayedCall | None = None
        self._why = Why.START
        self._renewals = 0
        self._toldKey: NodeKey | None = None
        self._waiters: list[Deferred[LoginInfo]] = []
        self.state = LoginState.NEEDS_KEY
        self.identity = identity
        self.loginURL = ""
        self.keyAccepted = False
        self._machine = LoginMachine(
            LoginCore(
                self._startCampaign,
                self._cancelCampaign,
                self._entered,
                self._succeeded,
                self._failed,
            )
        )

    # -- what may happen --------------------------------------------------------------

    def begin(self) -> None:
        """Start to log in."""
        self._machine.begin()

    def stop(self) -> None:
        """Stop whatever goes on; the server hears nothing of it."""
        self._machine.stop()
        self._answer(NotRunning("the control client was stopped"))

    def keyExpired(self) -> None:
        """The node key has expired: get a new one."""
        if self.state is LoginState.REGISTERED:
            self._renewals += 1
            if self._renewals > MOST_RENEWALS:
                self.keyAccepted = False
                self._machine.expired()
                self._machine.refused(
                    KeyExpired("the control server keeps calling new node keys expired")
                )
                return
        self._machine.expired()

    def keyForgotten(self) -> None:
        """The server does not know the node key any more: register afresh."""
        self.keyAccepted = False
        self._machine.forgotten()

    def mapIsGood(self) -> None:
        """A map shows the node authorized, with a key that is not expired."""
        self._renewals = 0
        if self.state is LoginState.NEEDS_LOGIN and self._why is not Why.EXPIRY:
            # The user asked for this login although the old key was good.
            return
        self._machine.healthy()

    def login(self, authKey: Secret | None = None) -> Deferred[LoginInfo]:
        """
        Log in again, with a new node key.

        @param authKey: used from now on instead of the one of the settings.
        @return: fires when the server has let the node in.  It fails with what
            the server refused it with; a key that was good before stays in
            use then.
        """
        if self.state is LoginState.NEEDS_KEY:
            return fail(NotRunning("the control client is not running"))
        if authKey is not None:
            self._authKey = authKey
        waiter: Deferred[LoginInfo] = Deferred(self._forgetWaiter)
        self._machine.relogin()
        self._waiters.append(waiter)
        return waiter

    def logout(self) -> Deferred[None]:
        """
        Tell the server that this node key is not to be used any more.

        The keys stay where they are: it is the server that lets the node in
        or not.

        @return: fires when the server has heard it; it fails with a
            L{ControlError} when it has not.  Either way nothing is tried any
            more until L{login}.
        """
        return Deferred.fromCoroutine(self._logout())

    async def _logout(self) -> None:
        self._machine.logout()
        self.keyAccepted = False
        self._answer(LoggedOut("the node was logged out"))
        key = self.identity.nodeKey
        if key is None:
            return
        request = registerRequest(
            self._api.version,
            self._settings,
            self.identity,
            key,
            self.identity.oldNodeKey,
            self._hostinfo,
        )
        request.expiry = LOGOUT_EXPIRY
        await self._api.expire(request, timeout=LOGOUT_TIMEOUT)

    # -- the machine acts -------------------------------------------------------------

    def _entered(self, state: LoginState, url: str) -> None:
        self.state = state
        self.loginURL = url
        self._events.stateChanged(state)
        if state is LoginState.NEEDS_LOGIN:
            self._events.loginURL(url)
        elif state is LoginState.NEEDS_APPROVAL:
            self._events.approvalNeeded()

    def _succeeded(self, login: LoginInfo) -> None:
        self._events.registered(login)
        self._answer(login)

    def _failed(self, error: TSRTError, forGood: bool) -> None:
        if forGood:
            self._events.failed(error)
        else:
            _log.warn(
                "the login was refused; the node key of before stays in use: {error}",
                error=str(error),
            )
        self._answer(error)

    def _startCampaign(self, why: Why) -> None:
        self._cancelCampaign()
        self._why = why
        # In a turn of its own: the machine must not be entered from within.
        self._begin = self._reactor.callLater(0, self._runCampaign)

    def _cancelCampaign(self) -> None:
        if self._begin is not None and self._begin.active():
            self._begin.cancel()
        self._begin = None
        campaign, self._campaign = self._campaign, None
        if campaign is not None:
            campaign.cancel()

    def _runCampaign(self) -> None:
        self._begin = None
        why = self._why
        regenerate = why in (Why.ASKED, Why.EXPIRY) or (
            why is Why.START and self._settings.forceReauth
        )
        campaign = Campaign(
            self._reactor,
            self._api,
            settings=self._settings,
            identity=self.identity,
            authKey=self._authKey,
            regenerate=regenerate,
            hostinfo=self._hostinfo,
            events=self,
            steps=self._steps,
            randbytes=self._randbytes,
            signer=self._signer,
            # A node that runs must not be lost for a key that was only good
            # for starting it.
            mayAsk=why is Why.EXPIRY,
        )
        running = Deferred.fromCoroutine(campaign.run())
        ended = running.addCallbacks(self._campaignWon, self._campaignLost)
        ended.addErrback(
            lambda failure: _log.failure("the login failed oddly", failure=failure)
        )
        if not running.called:
            self._campaign = ended

    def _campaignWon(self, result: tuple[Identity, LoginInfo]) -> None:
        self._campaign = None
        identity, login = result
        self._keyTaken(identity)
        self._machine.authorized(login)

    def _campaignLost(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        self._campaign = None
        if not isinstance(error, TSRTError):
            _log.failure("the login failed", failure=failure)
            error = ControlError(f"the login failed: {failure.getErrorMessage()}")
        if self.keyAccepted and self._why is Why.ASKED:
            self._machine.renewalRefused(error)
        else:
            self.keyAccepted = False
            self._machine.refused(error)

    def _keyTaken(self, identity: Identity) -> None:
        """The server takes the node key; say so unless that is known."""
        if self.keyAccepted and identity.nodeKey == self._toldKey:
            return
        self._toldKey = identity.nodeKey
        self.identity = self._current(identity)
        self.keyAccepted = True
        self._events.nodeKeyChanged(self.identity)

    def _current(self, identity: Identity) -> Identity:
        """C{identity}, with what may have changed since its login began."""
        return evolve(identity, discoPublic=self.identity.discoPublic)

    def _answer(self, result: LoginInfo | TSRTError) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(result, LoginInfo):
                waiter.callback(result)
            else:
                waiter.errback(result)

    def _forgetWaiter(self, waiter: Deferred[LoginInfo]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    # -- what a campaign tells (see CampaignEvents) -------------------------------------

    def save(self, identity: Identity) -> None:
        """See L{tsrt.control.campaign.CampaignEvents}."""
        identity = self._current(identity)
        self._events.identityChanged(identity)
        self.identity = identity

    def needsURL(self, url: str) -> None:
        """See L{tsrt.control.campaign.CampaignEvents}."""
        self._machine.urlGiven(url)

    def needsApproval(self, identity: Identity, login: LoginInfo) -> None:
        """See L{tsrt.control.campaign.CampaignEvents}."""
        self._keyTaken(identity)
        self._machine.approvalNeeded(login)

    def retrying(self, error: TSRTError) -> None:
        """See L{tsrt.control.campaign.CampaignEvents}."""
        self._events.trouble(error)
