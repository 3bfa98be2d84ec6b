"""Tailnet names for everything that resolves through a reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from tsrt.addresses import parseAddress
from tsrt.errors import WireError
from tsrt.overlay.context import OverlayContext, twistedAddress


@implementer(IHostResolution)
class TailnetResolution:
    """One look-up that may have to wait for the node to come up."""

    def __init__(self, name: str) -> None:
        """
        @param name: what is looked up, in the caller's spelling.
        """
        self.name = name
        self._forgetWait: Callable[[], None] | None = None
        self._cancelled = False

    def waitFor(self, forget: Callable[[], None]) -> None:
        """Remember how to take the request for the node's state back."""
        self._forgetWait = forget

    @property
    def isCancelled(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Stop waiting; nothing more is reported."""
        self._cancelled = True
        if self._forgetWait is not None:
            self._forgetWait()


@implementer(IHostnameResolver)
class TailnetHostnameResolver:
    """
    Resolves MagicDNS names from the netmap, in this process.

    It never asks the host's resolver: an unknown name has no addresses.
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
        """Report the addresses of C{hostName}, IPv4 first."""
        resolution = TailnetResolution(hostName)
        kinds = {
            4: addressTypes is None or IPv4Address in addressTypes,
            16: addressTypes is None or IPv6Address in addressTypes,
        }

        semantics: Literal["TCP", "UDP"] = (
            "UDP" if transportSemantics == "UDP" else "TCP"
        )

        def answer() -> None:
            if resolution.isCancelled:
                return
            for packed in self._lookUp(hostName):
                if kinds[len(packed)]:
                    resolutionReceiver.addressResolved(
                        twistedAddress(semantics, packed, portNumber)
                    )
            resolutionReceiver.resolutionComplete()

        resolutionReceiver.resolutionBegan(resolution)
        resolution.waitFor(self._context.whenUp(answer))
        return resolution

    def _lookUp(self, name: str) -> list[bytes]:
        try:
            return [parseAddress(name)]
        except WireError:
            return self._context.resolve(name)
