"""
Whom the control client tells what happens.
"""

from __future__ import annotations

from typing import Protocol

from tsrt.control.settings import Identity, LoginInfo
from tsrt.errors import TSRTError
from tsrt.tailcfg import MapResponse


class ControlObserver(Protocol):
    """
    The runtime, as the control client sees it.

    All calls come from the reactor, one after the other.  An exception that
    one of them raises is logged and changes nothing else, except for
    L{identityChanged}, which may veto.
    """

    def identityChanged(self, identity: Identity) -> None:
        """
        Save C{identity} before it is used.

        @raise TSRTError: when it cannot be saved; the login then fails.
        """

    def nodeKeyChanged(self, identity: Identity) -> None:
        """The server has accepted the node key: use it from now on."""

    def loginURL(self, url: str) -> None:
        """A person has to open C{url}; called once for each new one."""

    def approvalNeeded(self) -> None:
        """An administrator has to approve this machine."""

    def registered(self, login: LoginInfo) -> None:
        """The server has let the node in."""

    def mapStarted(self, resumed: bool) -> None:
        """
        A map stream begins; its first response follows.

        @param resumed: whether it goes on where the last one ended.  If not,
            all that was known from maps is void.
        """

    def mapResponse(self, response: MapResponse) -> None:
        """
        A map response, in the order in which they were sent.

        @raise ProtocolError: it cannot be used; the whole map is asked for anew.
        """

    def mapAlive(self, alive: bool) -> None:
        """Whether there is a map stream that has brought a map."""

    def openURL(self, url: str) -> None:
        """The server asks to show a page to the user."""

    def trouble(self, error: TSRTError) -> None:
        """Something failed and will be tried again."""

    def failed(self, error: TSRTError) -> None:
        """Something failed for good; nothing more is tried."""
