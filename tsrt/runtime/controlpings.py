"""Pinging peers because the control server wants to know."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from tsrt.addresses import parseAddress
from tsrt.errors import ConfigError, NotSupported
from tsrt.runtime.pings import Pinger, PingKind
from tsrt.tailcfg import PingResponse

# Seconds that such a ping may take.
_PING_TIMEOUT = 5.0


def answerPing(pinger: Pinger, ip: str, kind: str) -> Deferred[PingResponse]:
    """Ping a peer because the control server asks for it."""
    try:
        asked = PingKind.named(kind)
    except ConfigError as error:
        return fail(NotSupported(str(error)))
    return Deferred.fromCoroutine(_pingFor(pinger, ip, asked))


async def _pingFor(pinger: Pinger, ip: str, kind: PingKind) -> PingResponse:
    response = PingResponse(type=kind.value, ip=ip, nodeIP=ip)
    try:
        result = await pinger.ping(parseAddress(ip), kind, _PING_TIMEOUT)
    except Exception as error:
        response.err = str(error)
        return response
    response.nodeName = result.name
    response.latencySeconds = result.seconds
    way, _, where = result.path.partition(" ")
    if way == "direct":
        response.endpoint = where
    elif way == "peer-relay":
        response.peerRelay = where
    elif way == "relay":
        response.derpRegionCode = where
    return response
