"""
The timers of one peer's tunnel, as plain numbers.

Each timer is named after what happens when it runs out, and each method after
what happened on the wire.  Nothing here calls anything: the owner reports what
it sent and received, asks for L{TimerState.earliest}, and when that time has
come takes the due L{TimerEvent}s from L{TimerState.expire}.

A timer that is put off (as the keep-alives are with each packet) costs one
assignment: C{earliest} is allowed to be too early, never too late, and is made
exact again whenever it comes due.
"""

from __future__ import annotations

import enum
from math import inf

REKEY_AFTER_TIME = 120.0
"""Age in seconds at which the initiator of a session makes a new one."""

REJECT_AFTER_TIME = 180.0
"""Age in seconds from which a session neither sends nor receives."""

STOP_SENDING_TIME = 175.0
"""
Age in seconds from which we do not send on a session any more.

The other end may be a little ahead of us with its clock, and what we send needs
time to arrive: sent at the last moment it would come too late.
"""

REKEY_ATTEMPT_TIME = 90.0
"""How long to go on trying to complete one handshake, in seconds."""

REKEY_TIMEOUT = 5.0
"""Seconds to wait for the answer to an initiation, before jitter."""

MAX_JITTER = 0.333
"""The most that jitter adds to a wait for an answer, in seconds."""

KEEPALIVE_TIMEOUT = 10.0
"""Seconds after which received data is acknowledged by an empty message."""

REKEY_ON_RECEIVE = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
"""Age at which the initiator renews a session that it only receives on."""

SILENCE_TIMEOUT = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
"""Seconds without any answer to sent data that cast doubt on a session."""

ZERO_KEYS_AFTER = 3 * REJECT_AFTER_TIME
"""Seconds after the last handshake at which all keys are forgotten."""

MAX_RETRANSMITS = int(REKEY_ATTEMPT_TIME / REKEY_TIMEOUT)
"""How often an unanswered initiation is replaced by another: 18."""


HASTY_TIMEOUT = 1.0
"""Seconds to wait for the answer of a peer that has only just started."""

HASTY_ATTEMPTS = 3
"""
How many initiations to such a peer wait no longer than that.

Others often know a node from control before it is connected with its relay.
"""


class TimerEvent(enum.Enum):
    """What a tunnel has to do because a timer ran out."""

    RETRANSMIT = "nobody answered the handshake initiation: send another"
    GIVE_UP = "nobody answered any initiation: drop what waits, stop trying"
    KEEPALIVE = "data came in and nothing went out: send an empty message"
    NEW_HANDSHAKE = "data went out and nothing came in: make a new session"
    ZERO_KEYS = "the sessions are long expired: forget their keys"
    PERSISTENT = "nothing passed for the keep-alive interval: send something"


class TimerState:
    """
    When each timer of one peer runs out; C{inf} means that it is off.
    """

    __slots__ = (
        "earliest",
        "hasty",
        "interval",
        "jitter",
        "keepaliveAt",
        "newHandshakeAt",
        "persistentAt",
        "retransmitAt",
        "retransmits",
        "startedAt",
        "zeroKeysAt",
    )

    def __init__(self) -> None:
        """Start with every timer off."""
        self.earliest = inf
        """No timer runs out before this time; see the module."""
        self.hasty = 0
        """How many of the next initiations wait for L{HASTY_TIMEOUT} only."""
        self.interval = 0.0
        """Seconds between persistent keep-alives; 0 turns them off."""
        self.jitter = 0.0
        self.keepaliveAt = inf
        self.newHandshakeAt = inf
        self.persistentAt = inf
        self.retransmitAt = inf
        self.retransmits = 0
        """How often the initiation of this attempt was sent again."""
        self.startedAt = -inf
        """When the newest initiation was sent."""
        self.zeroKeysAt = inf

    # -- what happened ---------------------------------------------------

    def sent(self, now: float, isData: bool) -> None:
        """
        An authenticated message went out.

        @param isData: whether it carried a packet: empty messages and
            handshakes do not ask for an answer.
        """
        self.keepaliveAt = inf
        if isData and self.newHandshakeAt == inf:
            self.newHandshakeAt = at = now + SILENCE_TIMEOUT + self.jitter
            if at < self.earliest:
                self.earliest = at
        if self.interval:
            self._armPersistent(now)

    def received(self, now: float, isData: bool) -> None:
        """
        An authentic message came in.

        @param isData: whether it carried a packet.  An empty one must not
            make us answer, or two idle nodes would talk for ever.
        """
        self.newHandshakeAt = inf
        if isData and self.keepaliveAt == inf:
            self.keepaliveAt = at = now + KEEPALIVE_TIMEOUT
            if at < self.earliest:
                self.earliest = at
        if self.interval:
            self._armPersistent(now)

    def handshakeStarted(self, now: float, jitter: float) -> None:
        """
        We sent an initiation.

        @param jitter: from 0 to L{MAX_JITTER} seconds.
        """
        self.startedAt = now
        self.jitter = jitter
        wait = REKEY_TIMEOUT
        if self.hasty:
            self.hasty -= 1
            wait = HASTY_TIMEOUT
        self.retransmitAt = at = now + wait + jitter
        if at < self.earliest:
            self.earliest = at
        self.sent(now, False)

    def awaitTurn(self) -> None:
        """
        We would send an initiation, but the newest one is too young.

        Then its retransmission must come, even if it was answered meanwhile.
        """
        if self.retransmitAt == inf:
            self.retransmitAt = at = self.startedAt + REKEY_TIMEOUT + self.jitter
            if at < self.earliest:
                self.earliest = at

    def handshakeFinished(self) -> None:
        """The handshake that we started gave us a session."""
        self.retransmitAt = inf
        self.retransmits = self.hasty = 0

    def sessionMade(self, now: float, jitter: float) -> None:
        """
        New keys exist, whoever started the handshake.

        @param jitter: from 0 to L{MAX_JITTER} seconds.
        """
        self.jitter = jitter
        self.zeroKeysAt = at = now + ZERO_KEYS_AFTER
        if at < self.earliest:
            self.earliest = at

    def sessionDoubted(self, now: float) -> None:
        """
        The session is believed to be of no use: make a new one at once.

        How lately another handshake began does not matter: whoever answered
        that one is gone.
        """
        self.startedAt = -inf
        self.hasty = HASTY_ATTEMPTS
        self.newHandshakeAt = now
        if now < self.earliest:
            self.earliest = now

    def setInterval(self, interval: float, firstAt: float) -> None:
        """
        Turn persistent keep-alives on, off, or to another pace.

        @param interval: seconds; 0 for off.
        @param firstAt: when the first one is due, unless it is already due
            sooner.
        """
        self.interval = interval
        if not interval:
            self.persistentAt = inf
            return
        self.persistentAt = at = min(self.persistentAt, firstAt)
        if at < self.earliest:
            self.earliest = at

    def clear(self) -> None:
        """Turn everything off but the persistent keep-alive."""
        interval, persistentAt = self.interval, self.persistentAt
        TimerState.__init__(self)
        self.interval = interval
        self.persistentAt = self.earliest = persistentAt

    # -- what is due -----------------------------------------------------

    def expire(self, now: float) -> list[TimerEvent]:
        """
        Take the timers that have run out, and make L{earliest} exact.

        Retransmissions are counted here: the last one is followed by
        L{TimerEvent.GIVE_UP}.
        """
        due: list[TimerEvent] = []
        if self.zeroKeysAt <= now:
            self.zeroKeysAt = inf
            due.append(TimerEvent.ZERO_KEYS)
        if self.retransmitAt <= now:
            self.retransmitAt = inf
            if self.retransmits >= MAX_RETRANSMITS:
                self.retransmits = 0
                self.keepaliveAt = self.newHandshakeAt = inf
                due.append(TimerEvent.GIVE_UP)
            else:
                self.retransmits += 1
                due.append(TimerEvent.RETRANSMIT)
        if self.keepaliveAt <= now:
            self.keepaliveAt = inf
            due.append(TimerEvent.KEEPALIVE)
        if self.newHandshakeAt <= now:
            self.newHandshakeAt = inf
            due.append(TimerEvent.NEW_HANDSHAKE)
        if self.persistentAt <= now:
            self._armPersistent(now)
            due.append(TimerEvent.PERSISTENT)
        self.earliest = min(
            self.retransmitAt,
            self.keepaliveAt,
            self.newHandshakeAt,
            self.persistentAt,
            self.zeroKeysAt,
        )
        return due

    def _armPersistent(self, now: float) -> None:
        """The next persistent keep-alive is a full interval away."""
        self.persistentAt = at = now + self.interval
        if at < self.earliest:
            self.earliest = at
