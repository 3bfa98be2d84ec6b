"""The settings of one TCP flow."""

from __future__ import annotations

from attrs import field, frozen, validators

from tsrt.netstack.pacing import LONG


@frozen(kw_only=True)
class TCPOptions:
    """
    How a flow behaves; the defaults suit an overlay of 1280-byte packets.

    Times are in seconds, sizes in bytes.

    @ivar congestion: name of the congestion control, C{"cubic"} (RFC 9438) or
        C{"newreno"} (RFC 5681).
    @ivar receiveLimit: what the receive window grows to while the application
        keeps up.  Batches of packets starve below half a megabyte; memory is
        only taken by data that arrives and is not read.
    @ivar receiveInitial: what the receive window starts with.
    @ivar selectiveAck: whether to offer SACK.
    @ivar timestamps: whether to offer the timestamps option (RFC 7323).  It
        takes 12 bytes of every packet.  Old duplicates, its one use, do not get
        through the replay check of the tunnel; the other is worth it: a sender
        whose path died learns from the first answer by another path how long a
        round trip takes, and ends the doubling of its timer.
    @ivar noDelay: whether to begin with Nagle's algorithm off.
    @ivar pacedFrom: the round-trip time from which data leaves evenly, in place of
        as much at once as the window has room for; infinity for never.
    @ivar delayedAck: how long an acknowledgement may wait for company.
    @ivar synRetries: how often a SYN is repeated before the peer counts as
        dead: 6 means about two minutes.
    @ivar synAckRetries: the same for the answer to a SYN.
    @ivar userTimeout: how long data may stay unacknowledged (RFC 9293 section
        3.8.3 asks for at least 100 s).  A quarter of an hour, as with the
        kernels that people know: a laptop that sleeps through a meeting finds
        its streams alive.
    @ivar timeWait: how long a closed flow is remembered to answer repeated
        FINs.  Twice the classic segment lifetime would be four minutes, but no
        packet gets old inside a tunnel with a replay window; half a minute
        outlasts the peer's first few repetitions and bounds the memory.
    @ivar finWait: how long a flow that the application gave up altogether waits
        for the peer's FIN.
    """

    congestion: str = field(
        default="cubic", validator=validators.in_(("cubic", "newreno"))
    )
    receiveLimit: int = field(default=1 << 22, validator=validators.ge(2048))
    receiveInitial: int = field(default=65535, validator=validators.ge(1024))
    selectiveAck: bool = True
    timestamps: bool = True
    noDelay: bool = False
    pacedFrom: float = field(default=LONG, validator=validators.gt(0.0))
    delayedAck: float = field(default=0.040, validator=validators.ge(0.0))
    synRetries: int = field(default=6, validator=validators.ge(0))
    synAckRetries: int = field(default=5, validator=validators.ge(0))
    userTimeout: float = field(default=900.0, validator=validators.gt(0.0))
    timeWait: float = field(default=30.0, validator=validators.ge(0.0))
    finWait: float = field(default=60.0, validator=validators.gt(0.0))


DEFAULTS = TCPOptions()
"""The options of a flow when nobody says otherwise."""
