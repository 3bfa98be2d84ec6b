"""
Name resolution on the simulated internet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer


@implementer(IHostResolution)
class MemoryResolution:
    """One question to a L{MemoryResolver}."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.call: IDelayedCall | None = None

    def cancel(self) -> None:
        """See L{twisted.internet.interfaces.IHostResolution}."""
        if self.call is not None and self.call.active():
            self.call.cancel()


@implementer(IHostnameResolver)
class MemoryResolver:
    """Answers from a function, in a later turn as a real resolver does."""

    def __init__(
        self,
        clock: IReactorTime,
        lookup: Callable[[str], list[str]],
        delay: float = 0.0,
    ) -> None:
        """
        @param lookup: returns the addresses of a name.
        @param delay: seconds that each answer takes.
        """
        self._clock = clock
        self._lookup = lookup
        self.delay = delay

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See L{twisted.internet.interfaces.IHostnameResolver}."""
        resolution = MemoryResolution(hostName)
        kind: Literal["TCP", "UDP"]
        kind = "UDP" if transportSemantics == "UDP" else "TCP"

        def answer() -> None:
            for text in self._lookup(hostName):
                address = (
                    IPv6Address(kind, text, portNumber)
                    if ":" in text
                    else IPv4Address(kind, text, portNumber)
                )
                if addressTypes is None or type(address) in addressTypes:
                    resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        resolutionReceiver.resolutionBegan(resolution)
        resolution.call = self._clock.callLater(self.delay, answer)
        return resolution
