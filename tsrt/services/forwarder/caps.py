"""How many flows there may be, of one peer and of all."""

from __future__ import annotations

from attrs import frozen

from tsrt.errors import TooManyFlows


@frozen(kw_only=True)
class ForwardLimits:
    """
    Bounds of a forwarder.  Times are in seconds.

    @ivar tcp: TCP flows of all peers; C{tcpPerPeer} of one.
    @ivar udp: UDP flows of all peers; C{udpPerPeer} of one.
    @ivar pings: pings under way of all peers; C{pingsPerPeer} of one.
    @ivar handshake: how long a peer may take to finish a handshake after the
        other end has been reached.
    @ivar tcpIdle: silence after which a TCP flow ends (RFC 5382, 5).
    @ivar udpIdle: silence after which a UDP flow ends (RFC 4787, 4.3); C{dnsIdle}
        for those to port 53.
    @ivar sweep: time between looks for what is over.
    """

    tcp: int = 4096
    tcpPerPeer: int = 1536
    udp: int = 2048
    udpPerPeer: int = 512
    pings: int = 64
    pingsPerPeer: int = 16
    handshake: float = 30.0
    tcpIdle: float = 7440.0
    udpIdle: float = 120.0
    dnsIdle: float = 30.0
    sweep: float = 15.0


class FlowCaps:
    """Counts flows; who takes has to give back."""

    def __init__(self, most: int, mostPerPeer: int) -> None:
        self._most = most
        self._mostPerPeer = mostPerPeer
        self._byPeer: dict[bytes, int] = {}
        self.taken = 0

    def take(self, peer: bytes) -> None:
        """
        Count one more, before anything is opened for it (T-flow-caps).

        @raise TooManyFlows: there are as many as there may be.
        """
        mine = self._byPeer.get(peer, 0)
        if mine >= self._mostPerPeer:
            raise TooManyFlows(f"the peer has {mine} flows already")
        if self.taken >= self._most:
            raise TooManyFlows(f"all peers together have {self.taken} flows already")
        self._byPeer[peer] = mine + 1
        self.taken += 1

    def release(self, peer: bytes) -> None:
        """One flow has ended."""
        left = self._byPeer[peer] - 1
        if left:
            self._byPeer[peer] = left
        else:
            del self._byPeer[peer]
        self.taken -= 1
