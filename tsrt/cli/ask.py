"""C{tsrt whois} and C{tsrt ping}: asking a running node about others."""

from __future__ import annotations

import json
from typing import Any, TextIO

from twisted.internet.task import deferLater
from twisted.python.usage import UsageError

from tsrt.cli.local import LocalClient, LocalOptions, NodeRefused
from tsrt.cli.status import findNode


class WhoisOptions(LocalOptions):
    """The options of C{tsrt whois}."""

    command = "tsrt whois"
    arguments = "[options] ADDRESS[:PORT]"
    longdesc = "Tells which node and user are behind a tailnet address."
    optFlags = [["json", None, "Print all there is."]]

    def parseArgs(self, address: str) -> None:  # type: ignore[override]  # by design
        """See L{UsageOptions<twisted.python.usage.Options>}."""
        self["address"] = address

    async def run(self, reactor: Any, out: TextIO) -> None:
        """Ask, and print."""
        client = LocalClient(reactor, self.path)
        found = await client.ask("whois", {"addr": self["address"]})
        if self["json"]:
            out.write(json.dumps(found, indent=2) + "\n")
            return
        node, user = found["Node"], found["UserProfile"]
        lines = [
            "Machine:",
            f"  Name:          {node['Name'].rstrip('.')}",
            f"  ID:            {node['StableID']}",
            f"  Addresses:     {', '.join(node['Addresses'])}",
        ]
        if node.get("Tags"):
            lines.append(f"  Tags:          {', '.join(node['Tags'])}")
        else:
            lines += ["User:", f"  Name:     {user['LoginName']}"]
            lines.append(f"  ID:       {user['ID']}")
        if found["CapMap"]:
            lines.append("Capabilities:")
            for name, values in found["CapMap"].items():
                text = f": {json.dumps(values)}" if values else ""
                lines.append(f"  - {name}{text}")
        out.write("".join(f"{line}\n" for line in lines))


class PingOptions(LocalOptions):
    """The options of C{tsrt ping}."""

    command = "tsrt ping"
    arguments = "[options] PEER"
    longdesc = (
        "Pings a peer from the running node: by each path there may be (disco), until "
        "one is direct; or through its tunnel (--tsmp) or its network stack (--icmp)."
    )
    optFlags = [
        ["icmp", None, "Ask the peer's network stack."],
        ["tsmp", None, "Ask the peer's tunnel."],
        ["no-until-direct", None, "Go on when a path is direct."],
    ]
    optParameters: list[list[Any]] = [
        *LocalOptions.optParameters,
        ["c", "c", 10, "Pings at most.", int],
    ]

    def parseArgs(self, peer: str) -> None:  # type: ignore[override]  # by design
        """See L{UsageOptions<twisted.python.usage.Options>}."""
        self["peer"] = peer

    def postOptions(self) -> None:
        """See L{UsageOptions<twisted.python.usage.Options>}."""
        super().postOptions()
        if self["icmp"] and self["tsmp"]:
            raise UsageError("--icmp and --tsmp exclude each other")

    async def run(self, reactor: Any, out: TextIO) -> None:
        """Ping, and print each answer."""
        client = LocalClient(reactor, self.path)
        node = findNode(await client.ask("status"), self["peer"])
        ip = node["TailscaleIPs"][0]
        kind = "ICMP" if self["icmp"] else "TSMP" if self["tsmp"] else "disco"
        answered = False
        for turn in range(max(self["c"], 1)):
            if turn:
                await deferLater(reactor, 1.0)
            answer = await client.ask("ping", {"ip": ip, "type": kind}, post=True)
            if answer["Err"]:
                out.write(f"{answer['Err']}\n")
                continue
            answered = True
            way, isDirect = _way(answer)
            name = answer["NodeName"].partition(".")[0]
            milliseconds = max(round(answer["LatencySeconds"] * 1000), 1)
            out.write(f"pong from {name} ({ip}) via {way} in {milliseconds}ms\n")
            out.flush()
            if isDirect and not self["no-until-direct"]:
                return
        if not answered:
            raise NodeRefused("no answer")
        if kind == "disco" and not self["no-until-direct"]:
            raise NodeRefused("direct connection not established")


def _way(answer: dict[str, Any]) -> tuple[str, bool]:
    if answer["Endpoint"]:
        return str(answer["Endpoint"]), True
    if answer["PeerRelay"]:
        return f"peer-relay({answer['PeerRelay']})", False
    return f"DERP({answer['DERPRegionCode']})", False
