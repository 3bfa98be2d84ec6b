"""Tailnet names for everything that resolves through a reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.overlay.context import OverlayContext, twistedAddress

PATIENCE = 60.0
"""Seconds that a look-up waits for the node; as long as a start may take."""


@implementer(IHostResolution)
class TailnetResolution:
    """One look-up that may have to wait for the node to come up."""

    def __init__(self, name: str) -> None:
        """
        @param name: what is looked up, in the caller's spelling.
        """
        self.name = name
        self._isOver = False
        self._forgetWait: Callable[[], object] | None = None
        self._limit: IDelayedCall | None = None

    def begin(self, context: OverlayContext, answer: Callable[[bool], object]) -> None:
        """
        Wait for the node.

        @param answer: called once, with whether the node is up; never after
            L{cancel}.
        """

        def end(isUp: bool) -> None:
            if not self._isOver:
                self.cancel()
                answer(isUp)

        forget = context.whenUp(lambda: end(True))
        if not self._isOver:
            self._forgetWait = forget
            self._limit = context.reactor.callLater(PATIENCE, end, False)

    def cancel(self) -> None:
        """Stop waiting; nothing more is reported."""
        self._isOver = True
        forget, self._forgetWait = self._forgetWait, None
        if forget is not None:
            forget()
        if self._limit is not None and self._limit.active():
            self._limit.cancel()


@implementer(IHostnameResolver)
class TailnetHostnameResolver:
    """
    Resolves MagicDNS names from the netmap, in this process.

    It never asks the host's resolver: an unknown name has no addresses.  Nor
    has any name while the node does not come up.
    """

    def __init__(self, context: OverlayContext) -> None:
        """
        @param context: the node's overlay.
        """
        self._context = context

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        Report the addresses of C{hostName}, IPv4 first.

        @param hostName: a name, short or full, or an address literal.
        """
        kinds = {
            4: addressTypes is None or IPv4Address in addressTypes,
            16: addressTypes is None or IPv6Address in addressTypes,
        }
        semantics: Literal["TCP", "UDP"] = (
            "UDP" if transportSemantics == "UDP" else "TCP"
        )

        def answer(isUp: bool) -> None:
            for packed in self._lookUp(hostName) if isUp else ():
                if kinds[len(packed)]:
                    resolutionReceiver.addressResolved(
                        twistedAddress(semantics, packed, portNumber)
                    )
            resolutionReceiver.resolutionComplete()

        resolution = TailnetResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        resolution.begin(self._context, answer)
        return resolution

    def _lookUp(self, name: str) -> list[bytes]:
        try:
            return [parseAddress(name)]
        except WireError:
            return self._context.resolve(name)
