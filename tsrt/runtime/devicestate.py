"""
Where a device stands, in few words, and waiting until it runs.

C{NodeState} has Tailscale's words for every step; this says only what a program
has to do about it.
"""

from __future__ import annotations

import enum

from attrs import field, frozen

from tsrt.errors import KeyExpired, NeedsApproval, NeedsLogin, NotRunning, TSRTError
from tsrt.runtime.status import NodeState, NodeStatus


class Phase(enum.Enum):
    """The kinds of L{DeviceState}."""

    STOPPED = "stopped"
    CONNECTING = "connecting"
    RUNNING = "running"
    NEEDS_LOGIN = "needs login"
    NEEDS_APPROVAL = "needs approval"
    EXPIRED = "expired"
    FAILED = "failed"


@frozen
class DeviceState:
    """
    Where a device stands.

    @ivar url: the page that a person has to open, if one has to.
    @ivar error: why it does not run: what C{waitUntilRunning} raises; C{None}
        while it runs, or may come to run by itself.
    """

    phase: Phase
    url: str = ""
    error: TSRTError | None = field(default=None, eq=False)

    @property
    def isPermanent(self) -> bool:
        """Whether waiting is of no use, whatever others do."""
        return self.error is not None and self.error.isPermanent

    @classmethod
    def of(cls, status: NodeStatus) -> DeviceState:
        """That of a node with a status."""
        if status.error is not None:
            return cls(Phase.FAILED, "", status.error)
        if status.expired:
            expired = KeyExpired("the node key has expired")
            return cls(Phase.EXPIRED, status.loginURL, expired)
        if status.state is NodeState.RUNNING:
            return cls(Phase.RUNNING)
        if status.state is NodeState.NEEDS_LOGIN:
            login = NeedsLogin(url=status.loginURL)
            return cls(Phase.NEEDS_LOGIN, status.loginURL, login)
        if status.state is NodeState.NEEDS_MACHINE_AUTH:
            approval = NeedsApproval("the machine is not approved")
            return cls(Phase.NEEDS_APPROVAL, "", approval)
        if status.state is NodeState.STARTING:
            return cls(Phase.CONNECTING)
        return cls(Phase.STOPPED, "", NotRunning("the node is not started"))
