"""
An embedded control server: what a tailnet's nodes log in to, for tests.

It serves foreign clients as well as the nodes of this package, on a real
reactor or on a simulated one; see L{ControlServer}.
"""

from tsrt.testing.control.core import EPOCH, wallClock
from tsrt.testing.control.logins import PendingLogin
from tsrt.testing.control.pings import C2NResponse
from tsrt.testing.control.records import AuthKey, NodeRecord, User
from tsrt.testing.control.refusal import Refusal
from tsrt.testing.control.registration import RegistrationOptions
from tsrt.testing.control.server import ControlServer
from tsrt.testing.control.settings import ControlConfig, DNSSettings

__all__ = [
    "EPOCH",
    "AuthKey",
    "C2NResponse",
    "ControlConfig",
    "ControlServer",
    "DNSSettings",
    "NodeRecord",
    "PendingLogin",
    "Refusal",
    "RegistrationOptions",
    "User",
    "wallClock",
]
