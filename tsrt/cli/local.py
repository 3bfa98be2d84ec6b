"""Asking a running node, by its Unix socket."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.usage import UsageError
from twisted.web.client import URI, Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from tsrt.cli.options import CommandOptions
from tsrt.config import NodeConfig
from tsrt.errors import ConfigError, TSRTError
from tsrt.services.localapi import HOST, PREFIX

SOCKET = "tsrt.sock"
"""The socket of a node, in its state directory."""


class NoSuchNode(TSRTError):
    """No node answers at a socket."""

    advice = (
        "Is 'twistd tsrt' running? Name its socket with --socket, or its state "
        "directory with --statedir."
    )


class NodeRefused(TSRTError):
    """The node cannot answer the question."""


def socketPath(config: NodeConfig) -> Path:
    """The socket of the node that has a configuration."""
    return config.resolvedStateDir() / SOCKET


@implementer(IAgentEndpointFactory)
class _Socket:
    """Leads everything to one Unix socket."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See L{IAgentEndpointFactory}."""
        return UNIXClientEndpoint(self._reactor, str(self._path), timeout=5)


class LocalClient:
    """Asks one node."""

    def __init__(self, reactor: Any, path: Path) -> None:
        self._path = path
        pool = HTTPConnectionPool(reactor, persistent=False)
        self._agent: Agent = Agent.usingEndpointFactory(
            reactor, _Socket(reactor, path), pool=pool
        )

    async def ask(
        self, name: str, arguments: Mapping[str, str] | None = None, post: bool = False
    ) -> Any:
        """
        Ask for something.

        @return: the values of the answer's JSON.
        @raise NoSuchNode: nobody listens there.
        @raise NodeRefused: the node has no answer.
        """
        query = f"?{urlencode(arguments)}" if arguments else ""
        url = f"http://{HOST}{PREFIX}{name}{query}"
        try:
            response = await self._agent.request(
                b"POST" if post else b"GET",
                url.encode("ascii"),
                Headers({"Host": [HOST]}),
            )
            body = await readBody(response)
        except Exception as error:
            reason = getattr(error, "osError", None) or type(error).__name__
            if not self._path.exists():
                reason = "there is no such socket"
            raise NoSuchNode(f"no node answers at {self._path}: {reason}") from None
        if response.code != 200:
            raise NodeRefused(body.decode("utf-8", "replace").strip())
        return json.loads(body)


class LocalOptions(CommandOptions):
    """The options of a command that asks a running node."""

    optParameters: list[list[Any]] = [
        ["socket", None, None, "Unix socket of the node; also TS_SOCKET."],
        ["statedir", None, None, "State directory of the node, which has the socket."],
        ["hostname", None, None, "Host name of the node, if it was given one."],
    ]

    def postOptions(self) -> None:
        """See L{UsageOptions<twisted.python.usage.Options>}."""
        named = self["socket"] or os.environ.get("TS_SOCKET")
        if named:
            self.path = Path(named).expanduser()
            return
        try:
            config = NodeConfig.fromEnvironment(
                stateDir=self["statedir"], hostname=self["hostname"]
            )
        except ConfigError as error:
            raise UsageError(error.describe()) from None
        self.path = socketPath(config)
