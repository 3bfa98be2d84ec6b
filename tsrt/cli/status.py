"""C{tsrt status} and C{tsrt ip}: what a running node says of the tailnet."""

from __future__ import annotations

import json
from typing import Any, TextIO

from twisted.python.usage import UsageError

from tsrt.cli.local import LocalClient, LocalOptions, NodeRefused


class StatusOptions(LocalOptions):
    """The options of C{tsrt status}."""

    command = "tsrt status"
    longdesc = "Tells who is on the tailnet and how packets get there."
    optFlags = [
        ["json", None, "Print all there is, as 'tailscale status --json' does."],
        ["active", None, "Only peers with which packets were exchanged lately."],
    ]

    def opt_peers(self, value: str) -> None:
        """Whether to tell of peers: true (as without it) or false."""
        if value not in ("true", "false"):
            raise UsageError(f"--peers is true or false, not {value!r}")
        self["peers"] = value

    async def run(self, reactor: Any, out: TextIO) -> None:
        """Ask, and print."""
        peers = self.get("peers", "true")
        status = await LocalClient(reactor, self.path).ask("status", {"peers": peers})
        if self["json"]:
            out.write(json.dumps(status, indent=2) + "\n")
            return
        out.write(statusText(status, onlyActive=bool(self["active"])))


def statusText(status: dict[str, Any], onlyActive: bool = False) -> str:
    """
    The status in columns: address, name, owner, system, how it is.

    @param status: as C{tailscale status --json} tells it.
    """
    lines = []
    if status["BackendState"] != "Running":
        lines.append(f"The node is not running: {status['BackendState']}.")
        if status["AuthURL"]:
            lines.append(f"Log in at: {status['AuthURL']}")
    nodes = [status["Self"]] if status["Self"] else []
    peers = sorted(
        (status["Peer"] or {}).values(), key=lambda peer: peer["DNSName"].lower()
    )
    nodes += [peer for peer in peers if peer["Active"] or not onlyActive]
    rows = [_row(status, node, node is status["Self"]) for node in nodes]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(padded).rstrip())
    if status["Health"]:
        lines += ["", "# Health check:"]
        lines += [f"#     - {text}" for text in status["Health"]]
    lines += _dataPlane(status.get("DataPlane"))
    return "".join(f"{line}\n" for line in lines)


def _dataPlane(document: dict[str, Any] | None) -> list[str]:
    """By what means packets are handled, where the node tells it."""
    if document is None:
        return []
    families = {name: document[name] for name in ("IPv4", "IPv6") if name in document}
    means = {name: _offloads(family) for name, family in families.items()}
    if len(set(means.values())) > 1:
        how = "with UDP " + ", ".join(
            f"{offloads or 'nothing'} by {name}" for name, offloads in means.items()
        )
    elif any(means.values()):
        how = f"with UDP {means.popitem()[1]}"
    else:
        how = "without UDP offloads"
    narrow = sum(family["PathsWithoutSendOffload"] for family in families.values())
    if narrow:
        how += f"; {narrow} {'path' if narrow == 1 else 'paths'} without GSO"
    return ["", f"# Data plane: {document['Tier']}, {how}"]


def _offloads(family: dict[str, Any]) -> str:
    """What the system does for the socket of a family."""
    names = (("GSO", "UDPSendOffload"), ("GRO", "UDPReceiveOffload"))
    return " and ".join(name for name, key in names if family[key])


def _row(status: dict[str, Any], node: dict[str, Any], isSelf: bool) -> list[str]:
    suffix = f".{status['MagicDNSSuffix']}."
    name = node["DNSName"].removesuffix(suffix).rstrip(".") or node["HostName"]
    if node.get("Tags"):
        owner = "tagged-devices"
    else:
        user = (status["User"] or {}).get(str(node["UserID"]), {})
        owner = user.get("LoginName", "").partition("@")[0] + "@"
    addresses = node["TailscaleIPs"] or [""]
    how = "-" if isSelf else _how(node)
    return [addresses[0], name, owner, node["OS"], how]


def _how(node: dict[str, Any]) -> str:
    words = []
    traffic = node["TxBytes"] or node["RxBytes"]
    if node["Active"]:
        words.append("active")
    elif traffic:
        words.append("idle")
    if node["ExitNode"]:
        words.append("exit node")
    elif node["ExitNodeOption"]:
        words.append("offers exit node")
    if node["Active"]:
        if node["CurAddr"]:
            words.append(f"direct {node['CurAddr']}")
        elif node["PeerRelay"]:
            words.append(f"peer-relay {node['PeerRelay']}")
        elif node["Relay"]:
            words.append(f'relay "{node["Relay"]}"')
    if not node["Online"]:
        words.append("offline")
    text = "; ".join(words) or "-"
    if traffic:
        text += f", tx {node['TxBytes']} rx {node['RxBytes']}"
    return text


class IPOptions(LocalOptions):
    """The options of C{tsrt ip}."""

    command = "tsrt ip"
    arguments = "[options] [PEER]"
    longdesc = "Prints the tailnet addresses of the node, or of a peer."
    optFlags = [
        ["v4", "4", "Only the IPv4 address."],
        ["v6", "6", "Only the IPv6 address."],
        ["1", "1", "Only one address."],
    ]

    def parseArgs(self, peer: str = "") -> None:
        """See L{UsageOptions<twisted.python.usage.Options>}."""
        self["peer"] = peer

    async def run(self, reactor: Any, out: TextIO) -> None:
        """Ask, and print."""
        status = await LocalClient(reactor, self.path).ask("status")
        addresses = findNode(status, self["peer"])["TailscaleIPs"]
        wanted = [a for a in addresses if not (self["v4"] and ":" in a)]
        wanted = [a for a in wanted if not (self["v6"] and ":" not in a)]
        if not wanted:
            raise NodeRefused("there is no such address")
        for address in wanted[:1] if self["1"] else wanted:
            out.write(f"{address}\n")


def findNode(status: dict[str, Any], name: str) -> dict[str, Any]:
    """
    The node with a name or an address; this one for an empty name.

    @raise NodeRefused: there is none.
    """
    if not name:
        own: dict[str, Any] | None = status["Self"]
        if own is None:
            raise NodeRefused("the node has no address yet")
        return own
    wanted = name.rstrip(".").lower()
    node: dict[str, Any]
    for node in (status["Self"] or {}, *(status["Peer"] or {}).values()):
        full = node.get("DNSName", "").rstrip(".").lower()
        if wanted in (full, full.partition(".")[0], *node.get("TailscaleIPs", ())):
            return node
    raise NodeRefused(f"no node of the tailnet is called {name!r}")
