"""
Telling a captive portal: a network that lets nobody out before a login page.

Such a network answers HTTP in the place of others.  So servers are asked for a
page whose answer is known beforehand; who answers something else is a portal.
Only plain HTTP will do, and addresses rather than names: portals answer DNS, too.
"""

from __future__ import annotations

from attrs import frozen

from tsrt.addresses import formatAddress
from tsrt.path.probes import stunServer
from tsrt.tailcfg import DERPMap
from tsrt.wire.httphead import ResponseHead

MOST_CHECKS = 5
"""Servers that are asked at once."""

PATH = "/generate_204"
"""The page, which has no content: status 204."""

CHALLENGE_HEADER = "X-Tailscale-Challenge"
RESPONSE_HEADER = "x-tailscale-response"

TAILSCALE_HOSTS = ("controlplane.tailscale.com", "login.tailscale.com")
"""Hosts that have the page and are asked by those who use them anyway."""


@frozen
class PortalCheck:
    """
    One question.

    @ivar host: an address literal or a name, asked at port 80.
    @ivar challenge: what the server has to say in its answer; empty: nothing.
    """

    host: str
    challenge: str = ""

    def request(self) -> bytes:
        """The whole HTTP request."""
        lines = [
            f"GET {PATH} HTTP/1.1",
            f"Host: {self.host}",
            "User-Agent: tsrt",
            "Cache-Control: no-cache, no-store, must-revalidate, no-transform, "
            "max-age=0",
            "Connection: close",
        ]
        if self.challenge:
            lines.append(f"{CHALLENGE_HEADER}: {self.challenge}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def isForged(self, answer: ResponseHead) -> bool:
        """Whether somebody else than the server answered."""
        if answer.status != 204:
            return True
        if not self.challenge:
            return False
        return answer.header(RESPONSE_HEADER) != f"response {self.challenge}"


def portalChecks(
    derpMap: DERPMap, preferred: int = 0, further: tuple[str, ...] = ()
) -> tuple[PortalCheck, ...]:
    """
    Whom to ask: relays that serve port 80, those of the home region first.

    @param preferred: the home region, or 0.
    @param further: hosts that have the page, asked after those.
    @return: at most L{MOST_CHECKS}.
    """
    regions = derpMap.regions or {}
    order = sorted(regions, key=lambda number: (number != preferred, number))
    checks = []
    for number in order:
        region = regions[number]
        if region is None or region.avoid or region.noMeasureNoHome:
            continue
        for node in region.nodes or ():
            server = stunServer(node, 4) if node.canPort80 else None
            if server is not None:
                host = formatAddress(server.address)
                checks.append(PortalCheck(host, f"ts_{host}"))
    checks += map(PortalCheck, further)
    return tuple(checks[:MOST_CHECKS])
