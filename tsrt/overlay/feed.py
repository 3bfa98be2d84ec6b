"""
Who feeds a connection: the producer that is registered with a transport.

What is written and not yet acknowledged is measured against marks that follow
what the path can carry, so that a slow peer pauses the producer, a fast one
never waits for it, and memory stays bounded either way.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import IProducer, IPullProducer, IPushProducer

from tsrt.netstack.flow import TCPFlow

LEAST_HIGH_WATER = 128 * 1024
"""Bytes written and not acknowledged below which no producer is paused."""

MOST_HIGH_WATER = 8 * 1024 * 1024
"""Bytes written and not acknowledged above which every producer is paused."""


class Feed:
    """
    The producer of one connection, if it has one.

    The methods call the producer, so they raise whatever that raises.

    @ivar producer: who produces; L{None} for nobody.
    @ivar streaming: whether it produces until it is told to pause, rather than
        once each time that it is asked.
    """

    __slots__ = ("_flow", "_resumeAt", "_waiting", "producer", "streaming")

    def __init__(self, flow: TCPFlow) -> None:
        """
        @param flow: what the producer's data is written to.
        """
        self._flow = flow
        self._waiting = False
        self._resumeAt = 0
        self.producer: IProducer | None = None
        self.streaming = False

    def register(self, producer: IProducer, streaming: bool) -> bool:
        """
        Begin with a producer; one that has to be asked is asked at once.

        @return: as L{written} does.
        @raise RuntimeError: there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer "
                f"{self.producer} was never unregistered."
            )
        self.producer = producer
        self.streaming = streaming
        self._waiting = False
        if streaming:
            return False
        cast(IPullProducer, producer).resumeProducing()
        # What was written before it came is to go out first.
        return self._flow.queued > 0 and self.written()

    def unregister(self) -> None:
        """Forget the producer."""
        self.producer = None

    def stop(self) -> None:
        """Tell the producer that nobody takes its data any more; forget it."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def written(self) -> bool:
        """
        Data was written: pause the producer if that was enough.

        @return: whether L{room} should be called in a later turn, although
            the flow will give no notice.
        """
        if self.producer is None:
            return False
        flow = self._flow
        # Two of what may be in flight, so that the path does not run dry
        # between the notice that half of it has gone and the next write.
        high = max(LEAST_HIGH_WATER, min(2 * flow.sendWindow, MOST_HIGH_WATER))
        if flow.queued <= high:
            if self.streaming:
                return False
            self._waiting = True
            self._resumeAt = high
            return True
        self._resumeAt = flow.writeLowWater = high // 2
        wasWaiting, self._waiting = self._waiting, True
        if self.streaming and not wasWaiting:
            cast(IPushProducer, self.producer).pauseProducing()
        return False

    def room(self) -> None:
        """Let the producer go on, if it waits and there is room."""
        if (
            self.producer is not None
            and self._waiting
            and self._flow.queued <= self._resumeAt
        ):
            self._waiting = False
            cast(IPullProducer, self.producer).resumeProducing()
