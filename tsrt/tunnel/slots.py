"""
The sessions that one tunnel has at the same time.

C{current} sends; C{previous} still receives what was on its way when it was
replaced; C{next} belongs to a handshake of the peer and may not send before
the peer has used it, which is the only proof that the peer got our response
and that its initiation was no replay.
"""

from __future__ import annotations

from collections.abc import Callable

from tsrt.tunnel.session import Session
from tsrt.tunnel.timers import STOP_SENDING_TIME


class SessionSlots:
    """
    At most three sessions, each in its role.

    Each index of a session that leaves is released, exactly once.
    """

    __slots__ = ("_release", "current", "next", "previous")

    def __init__(self, release: Callable[[bytes], None]) -> None:
        """
        @param release: takes back the receiver index of a session that ends.
        """
        self._release = release
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None

    def find(self, index: bytes) -> Session | None:
        """The session to which a receiver index belongs."""
        for session in (self.current, self.next, self.previous):
            if session is not None and session.index == index:
                return session
        return None

    def usable(self, now: float) -> Session | None:
        """The session to send on, if there is one that is young enough."""
        session = self.current
        if session is None or now - session.createdAt >= STOP_SENDING_TIME:
            return None
        return session

    def offer(self, session: Session) -> None:
        """We answered the peer's handshake; it has to use the session first."""
        self._drop(self.next)
        self.next = session

    def confirm(self) -> None:
        """The peer used the session that we offered."""
        self._drop(self.previous)
        self.previous, self.current, self.next = self.current, self.next, None

    def complete(self, session: Session) -> None:
        """The peer answered our handshake: the session is good at once."""
        self._drop(self.previous)
        if self.next is None:
            self.previous = self.current
        else:
            # Both sides started at once.  The peer may already be sending on
            # the session that it started, so that one stays to receive on.
            self._drop(self.current)
            self.previous, self.next = self.next, None
        self.current = session

    def retire(self) -> None:
        """Send on nothing any more; what the peer sends may still come."""
        if self.current is not None:
            self._drop(self.previous)
            self.previous, self.current = self.current, None

    def clear(self) -> None:
        """Forget all sessions."""
        for session in (self.previous, self.current, self.next):
            self._drop(session)
        self.previous = self.current = self.next = None

    def _drop(self, session: Session | None) -> None:
        """Give back the index of a session that ends."""
        if session is not None:
            self._release(session.index)
