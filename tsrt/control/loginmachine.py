"""
Where a node stands with its control server, as a state machine.

The machine decides; L{tsrt.control.campaign} does the talking.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from automat import TypeMachineBuilder

from tsrt.control.settings import LoginInfo
from tsrt.errors import TSRTError


class LoginState(enum.Enum):
    """Where a node stands with its control server."""

    NEEDS_KEY = "needs a key"
    """Nothing was begun, or everything was stopped."""

    REGISTERING = "registering"
    NEEDS_LOGIN = "needs login"
    """A person has to open a URL."""

    NEEDS_APPROVAL = "needs approval"
    """An administrator has to approve the machine."""

    REGISTERED = "registered"
    EXPIRED = "expired"
    """The node key has expired, and a new one is on its way."""

    LOGGED_OUT = "logged out"
    FAILED = "failed"
    """The server refused; nothing is tried any more."""


class Why(enum.Enum):
    """What a login is for."""

    START = "start"
    EXPIRY = "expiry"
    FORGOTTEN = "forgotten"
    ASKED = "asked"


class Login(Protocol):
    """What may happen."""

    def begin(self) -> None:
        """The node was started."""

    def urlGiven(self, url: str) -> None:
        """The server wants a person to open C{url}."""

    def approvalNeeded(self, login: LoginInfo) -> None:
        """The server wants an administrator to approve."""

    def authorized(self, login: LoginInfo) -> None:
        """The server let the node in."""

    def refused(self, error: TSRTError) -> None:
        """The server refused, and the node has no key that it takes."""

    def renewalRefused(self, error: TSRTError) -> None:
        """The server refused a new key; the one before is still good."""

    def expired(self) -> None:
        """The node key has expired."""

    def healthy(self) -> None:
        """The map shows the node in good standing."""

    def forgotten(self) -> None:
        """The server does not know the node key any more."""

    def relogin(self) -> None:
        """The user wants to log in again."""

    def logout(self) -> None:
        """The user wants to log out."""

    def stop(self) -> None:
        """The node was stopped."""


@define
class LoginCore:
    """
    What the machine acts on.

    @ivar pending: whose node it will be once it is approved.
    @ivar start: begin to log in; what ran before ends.
    @ivar cancel: end what runs.
    @ivar entered: told each state that was entered.
    @ivar succeeded: told that the node is in.
    @ivar failed: told that it is not, and why.
    """

    start: Callable[[Why], None]
    cancel: Callable[[], None]
    entered: Callable[[LoginState, str], None]
    succeeded: Callable[[LoginInfo], None]
    failed: Callable[[TSRTError, bool], None]
    pending: LoginInfo = field(factory=LoginInfo)


_builder = TypeMachineBuilder(Login, LoginCore)

_idle = _builder.state("Idle")
_registering = _builder.state("Registering")
_needsLogin = _builder.state("NeedsLogin")
_needsApproval = _builder.state("NeedsApproval")
_registered = _builder.state("Registered")
_expired = _builder.state("Expired")
_loggedOut = _builder.state("LoggedOut")
_failed = _builder.state("Failed")

_trying = (_registering, _needsLogin, _needsApproval, _expired)
_resting = (_registered, _loggedOut, _failed)
_started = (*_trying, *_resting)


@_idle.upon(Login.begin).to(_registering)
def _begin(machine: Login, core: LoginCore) -> None:
    core.entered(LoginState.REGISTERING, "")
    core.start(Why.START)


for _state in _started:

    @_state.upon(Login.relogin).to(_registering)
    def _relogin(machine: Login, core: LoginCore) -> None:
        core.entered(LoginState.REGISTERING, "")
        core.start(Why.ASKED)

    @_state.upon(Login.logout).to(_loggedOut)
    def _logout(machine: Login, core: LoginCore) -> None:
        core.cancel()
        core.entered(LoginState.LOGGED_OUT, "")

    @_state.upon(Login.stop).to(_idle)
    def _stop(machine: Login, core: LoginCore) -> None:
        core.cancel()
        core.entered(LoginState.NEEDS_KEY, "")


for _state in _trying:

    @_state.upon(Login.urlGiven).to(_needsLogin)
    def _urlGiven(machine: Login, core: LoginCore, url: str) -> None:
        core.entered(LoginState.NEEDS_LOGIN, url)

    @_state.upon(Login.authorized).to(_registered)
    def _authorized(machine: Login, core: LoginCore, login: LoginInfo) -> None:
        core.entered(LoginState.REGISTERED, "")
        core.succeeded(login)

    @_state.upon(Login.refused).to(_failed)
    def _refused(machine: Login, core: LoginCore, error: TSRTError) -> None:
        core.cancel()
        core.entered(LoginState.FAILED, "")
        core.failed(error, True)

    @_state.upon(Login.renewalRefused).to(_registered)
    def _renewalRefused(machine: Login, core: LoginCore, error: TSRTError) -> None:
        core.entered(LoginState.REGISTERED, "")
        core.failed(error, False)


for _state in (_registering, _needsLogin, _expired):

    @_state.upon(Login.approvalNeeded).to(_needsApproval)
    def _approvalNeeded(machine: Login, core: LoginCore, login: LoginInfo) -> None:
        core.pending = login
        core.entered(LoginState.NEEDS_APPROVAL, "")


@_needsApproval.upon(Login.healthy).to(_registered)
def _approved(machine: Login, core: LoginCore) -> None:
    core.cancel()
    core.entered(LoginState.REGISTERED, "")
    core.succeeded(core.pending)


for _state in (_expired, _needsLogin):

    @_state.upon(Login.healthy).to(_registered)
    def _renewed(machine: Login, core: LoginCore) -> None:
        """The server has given the old key more time."""
        core.cancel()
        core.entered(LoginState.REGISTERED, "")


@_registered.upon(Login.expired).to(_expired)
def _expire(machine: Login, core: LoginCore) -> None:
    core.entered(LoginState.EXPIRED, "")
    core.start(Why.EXPIRY)


for _state in (_registered, _needsApproval):

    @_state.upon(Login.forgotten).to(_registering)
    def _forgotten(machine: Login, core: LoginCore) -> None:
        core.entered(LoginState.REGISTERING, "")
        core.start(Why.FORGOTTEN)


# What is left is decided too: it changes nothing.
_needsApproval.upon(Login.approvalNeeded).loop().returns(None)
for _state in _started:
    _state.upon(Login.begin).loop().returns(None)
for _state in (
    _registering,
    _needsLogin,
    _needsApproval,
    _expired,
    _loggedOut,
    _failed,
):
    _state.upon(Login.expired).loop().returns(None)
for _state in (_registering, _needsLogin, _expired, _loggedOut, _failed):
    _state.upon(Login.forgotten).loop().returns(None)
for _state in (_registering, *_resting):
    _state.upon(Login.healthy).loop().returns(None)
for _state in _resting:
    _state.upon(Login.urlGiven).loop().returns(None)
    _state.upon(Login.approvalNeeded).loop().returns(None)
    _state.upon(Login.authorized).loop().returns(None)
    _state.upon(Login.refused).loop().returns(None)
    _state.upon(Login.renewalRefused).loop().returns(None)
for _input in (
    Login.urlGiven,
    Login.approvalNeeded,
    Login.authorized,
    Login.refused,
    Login.renewalRefused,
):
    _idle.upon(_input).loop().returns(None)
for _quiet in (
    Login.expired,
    Login.healthy,
    Login.forgotten,
    Login.relogin,
    Login.logout,
    Login.stop,
):
    _idle.upon(_quiet).loop().returns(None)

LoginMachine = _builder.build()
