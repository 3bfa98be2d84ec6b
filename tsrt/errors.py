"""
The tree of errors that tsrt raises.

Every error derives from L{TSRTError}.  Errors that a user meets carry three
things: what happened (the message), how lasting it is (L{Persistence}) and
what to do next (C{advice}).  Errors that a caller would already catch under a
builtin name derive from that name too.

This module is pure: it is imported by every layer.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Persistence(enum.Enum):
    """How lasting a failure is, and so what a program may do about it."""

    PERMANENT = "permanent"
    """Trying again with the same settings cannot help; retrying stops."""

    RECOVERABLE = "recoverable"
    """Somebody has to act (log in, approve); the node goes on waiting."""

    TRANSIENT = "transient"
    """Time or the network may cure it; the node retries by itself."""


class TSRTError(Exception):
    """The root of all errors of this package."""

    persistence: ClassVar[Persistence] = Persistence.PERMANENT
    advice: str = ""

    def __init__(self, message: str = "", *, advice: str | None = None) -> None:
        """
        @param message: one sentence that says what happened.
        @param advice: what to do next, when it differs from the class's.
        """
        super().__init__(message)
        if advice is not None:
            self.advice = advice

    @property
    def isPermanent(self) -> bool:
        """Whether retrying with the same settings is useless."""
        return self.persistence is Persistence.PERMANENT

    def describe(self) -> str:
        """What happened and what to do next, as one or two sentences."""
        message = str(self) or type(self).__name__
        if not self.advice:
            return message
        return f"{message.rstrip('.')}. {self.advice}"


# -- bytes ------------------------------------------------------------------


class WireError(TSRTError, ValueError):
    """Bytes or text from the network do not have the form they must have."""


class DecryptError(WireError):
    """A sealed message does not open with the key at hand."""


class ProtocolError(TSRTError):
    """A peer broke the rules of a protocol; the connection is given up."""

    persistence = Persistence.TRANSIENT


# -- configuration and state ------------------------------------------------


class ConfigError(TSRTError, ValueError):
    """A setting is missing, malformed or contradicts another one."""


class NotSupported(TSRTError):
    """What was asked for cannot be done by this version or on this system."""


class StateError(TSRTError, OSError):
    """The saved state of a node cannot be used."""


class StateUnreadable(StateError):
    """The state file or directory cannot be read or written."""

    advice = "Check the owner and the mode of the state directory."


class StateCorrupt(StateError):
    """The state file exists but does not hold a node's state."""

    advice = (
        "Restore it from a copy, or move it away to join the tailnet as a new node."
    )


class StateLocked(StateError):
    """Another node is using the state directory."""

    advice = "Give each node a state directory of its own."


# -- talking with the control server ----------------------------------------


class ControlError(TSRTError):
    """The control server cannot be used as things stand."""

    persistence = Persistence.TRANSIENT


class ControlUnreachable(ControlError):
    """No connection to the control server could be made."""

    advice = "Check the login server's address, DNS and the network."


class InsecureControlURL(ControlError, ValueError):
    """A plain C{http://} control server that is not on this machine."""

    persistence = Persistence.PERMANENT
    advice = (
        "Use https://, or, if the network between here and the server is "
        "trusted, permit plain HTTP (--allow-http, NodeConfig.allowHTTP)."
    )


class UpgradeRefused(ControlError):
    """Something answered the control upgrade with plain HTTP."""

    advice = (
        "A proxy in front of the control server probably drops the Upgrade "
        "header; it must pass 'Upgrade' and 'Connection' through on /ts2021."
    )


class WrongControlKey(ControlError):
    """The server could not prove that it owns the key that it published."""

    persistence = Persistence.PERMANENT
    advice = (
        "Check that the login server's address leads to the server you mean "
        "and that no proxy answers in its place."
    )


class ControlTooOld(ControlError):
    """The control server speaks no protocol that tsrt knows."""

    persistence = Persistence.PERMANENT
    advice = "Update the control server."


class ClientTooOld(ControlError):
    """The control server refuses the capability version of tsrt."""

    persistence = Persistence.PERMANENT
    advice = "Update tsrt."


class ControlHTTPError(ControlError):
    """The control server answered a request with an HTTP error."""

    def __init__(
        self,
        message: str = "",
        *,
        status: int = 0,
        retryAfter: float | None = None,
        advice: str | None = None,
    ) -> None:
        """
        @param status: the HTTP status code.
        @param retryAfter: seconds that the server asks us to wait, if it did.
        """
        super().__init__(message, advice=advice)
        self.status = status
        self.retryAfter = retryAfter


class ControlProtocolError(ControlError, ProtocolError):
    """The control server sent something that its protocol does not allow."""


class ClockSkew(ControlError):
    """The clock of this machine is too far off for certificates to be valid."""

    advice = "Set the clock of this machine."


class NotSupportedByControl(ControlError, NotSupported):
    """The control server does not offer what was asked for."""

    persistence = Persistence.PERMANENT


# -- logging in --------------------------------------------------------------


class LoginError(TSRTError):
    """The control server does not (or not yet) let this node in."""


class RegistrationRefused(LoginError):
    """The control server refused the node with a text of its own."""


class AuthKeyInvalid(RegistrationRefused):
    """The control server does not know the auth key."""

    advice = "Check that the key was copied whole and belongs to this login server."


class AuthKeyExpired(RegistrationRefused):
    """The auth key is past its expiry."""

    advice = "Create a new auth key."


class AuthKeyUsed(RegistrationRefused):
    """The auth key was good for one node and has been used."""

    advice = "Create a new auth key, or a reusable one."


class TagsRefused(RegistrationRefused):
    """The control server does not let this node have the tags it asks for."""

    advice = "Check the tag owners in the tailnet's policy, or drop --advertise-tags."


class NeedsLogin(LoginError):
    """A person has to open a URL to let this node in."""

    persistence = Persistence.RECOVERABLE

    def __init__(
        self, message: str = "", *, url: str = "", advice: str | None = None
    ) -> None:
        """
        @param url: the page to open.
        """
        super().__init__(message or f"to log in, open {url}", advice=advice)
        self.url = url


class NeedsApproval(LoginError):
    """An administrator has to approve this node."""

    persistence = Persistence.RECOVERABLE
    advice = "Ask an administrator of the tailnet to approve this machine."


class KeyExpired(LoginError):
    """The node key of this node has expired and nobody renewed it."""

    advice = "Log in again (a new auth key, or --force-reauth)."


class LoggedOut(LoginError):
    """The node was logged out, here or by the control server."""

    advice = "Log in again."


# -- starting up -------------------------------------------------------------


class StartupTimeout(TSRTError, TimeoutError):
    """The node did not come up in time; the message lists each step tried."""

    persistence = Persistence.TRANSIENT


# -- relays --------------------------------------------------------------------


class RelayError(TSRTError):
    """A DERP relay cannot be used."""

    persistence = Persistence.TRANSIENT


class RelayCertificateError(RelayError):
    """The certificate of a DERP relay is not the one it must be."""


# -- the overlay ---------------------------------------------------------------


class PortInUse(TSRTError, OSError):
    """The asked-for port of the overlay is taken."""

    advice = "Choose another port, or stop what listens there."


class NoFreePort(TSRTError, OSError):
    """All ephemeral ports of the overlay are taken."""

    persistence = Persistence.TRANSIENT


class UnknownPeer(TSRTError, LookupError):
    """No node of the tailnet has that address or name."""


class NotRunning(TSRTError):
    """The node has not been started, or has been stopped."""

    advice = "Start the node first and wait for up()."


# -- forwarding ------------------------------------------------------------------


class EgressRefused(TSRTError):
    """A flow of a peer is not let out to a real network."""


class NotAdvertised(EgressRefused):
    """The flow goes to an address that this node does not lead to."""


class ForbiddenDestination(EgressRefused):
    """The flow goes to this machine, its cloud, its neighbours or the tailnet."""


class ExitEgressRefused(EgressRefused):
    """The flow goes to the internet, and nothing may leave for it from here."""

    advice = "Set forwardExitEgress to let the flows of peers out by this host."


class ProxyUDPUnsupported(EgressRefused, NotSupported):
    """Datagrams and pings cannot leave by an upstream proxy."""


class TooManyFlows(EgressRefused):
    """The peer, or all of them together, have as many flows as there may be."""

    persistence = Persistence.TRANSIENT
