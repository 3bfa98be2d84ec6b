"""C{twistd tsrt}: a node as a service, with the names that Tailscale users know."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    clientFromString,
    serverFromString,
)
from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    globalLogPublisher,
)

from tsrt._options import Options, listening
from tsrt.cli.ending import Ending
from tsrt.cli.filelimit import raiseFileLimit
from tsrt.cli.hangup import HangUpService
from tsrt.cli.prompt import TerminalPrompt
from tsrt.cli.vital import VitalEndpoint
from tsrt.errors import ConfigError, TSRTError
from tsrt.node import Node
from tsrt.services.capture import CaptureService
from tsrt.services.files import FilesService
from tsrt.services.forward import ForwardService
from tsrt.services.localapi import LocalAPIService
from tsrt.services.loopback import ProxyService
from tsrt.services.metrics import MetricsService
from tsrt.services.pinger import PingService
from tsrt.services.proxy import ProxyFactory
from tsrt.services.statusfile import StatusFileService
from tsrt.state import MemoryStateStore

__all__ = ["Options", "Supervisor", "makeService", "makeServiceOn"]


class Supervisor(Service):
    """Ends the process, with a sentence, when the node cannot go on."""

    def __init__(
        self,
        node: Node,
        giveUp: Callable[[TSRTError], object],
        announce: Callable[[str], object],
    ) -> None:
        self._node = node
        self._giveUp = giveUp
        self._announce = announce
        self._unwatch: Callable[[], None] | None = None
        self._waiting: Deferred[None] | None = None

    def startService(self) -> None:
        """Wait for the node, and watch it from then on."""
        super().startService()
        self._unwatch = self._node.watchStatus(self._look)
        self._waiting = Deferred.fromCoroutine(self._awaitNode())

    def stopService(self) -> None:
        """The process ends anyway."""
        super().stopService()
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self._waiting is not None:
            self._waiting.cancel()

    async def _awaitNode(self) -> None:
        try:
            status = await self._node.up()
        except TSRTError as error:
            if self.running:
                self._giveUp(error)
        except Exception:
            pass  # cancelled: the process is stopping
        else:
            self._announce(
                f"{status.name or 'the node'} is up at {' and '.join(status.addresses)}"
            )
        finally:
            self._waiting = None

    def _look(self, status: object) -> None:
        error = self._node.status.error
        if error is not None and self._waiting is None and self.running:
            self._giveUp(error)


def makeService(options: Options) -> MultiService:
    """Make the node and everything that the options hang on it."""
    from twisted.internet import reactor

    raiseFileLimit()
    return makeServiceOn(reactor, options)


def makeServiceOn(reactor: Any, options: Options) -> MultiService:
    """
    Make the service on a given reactor.

    @param reactor: the host's reactor, with every interface that Twisted's own
        has.
    """
    ending = Ending(reactor, sys.__stderr__)
    node = Node(
        reactor,
        options.config,
        state=MemoryStateStore() if options["state"] else None,
        login=TerminalPrompt(sys.__stderr__),
    )

    def giveUp(error: TSRTError) -> None:
        # What ended the node stands in the log already.
        ending.giveUp(error, isLogged=error is node.status.error)

    def vital(endpoint: IStreamServerEndpoint, what: str) -> IStreamServerEndpoint:
        return VitalEndpoint(endpoint, what, giveUp)

    top = MultiService()
    try:
        for port, endpoint in options["listen-tcp"]:
            ForwardService(
                vital(node.serverEndpoint(port), f"--listen-tcp {port}"),
                clientFromString(reactor, endpoint),
                f"tailnet {port} to {endpoint}",
            ).setServiceParent(node.apps)
        for endpoint, host, port in options["forward"]:
            ForwardService(
                vital(serverFromString(reactor, endpoint), f"--forward {endpoint}"),
                node.clientEndpoint(host, port),
                f"{endpoint} to {host}:{port}",
            ).setServiceParent(node.apps)
        for address, protocols in options.proxies().items():
            endpoint = serverFromString(reactor, listening(address))
            ProxyService(
                vital(endpoint, f"the proxy at {address}"),
                ProxyFactory(reactor, reactor, node.tailnet(), None, protocols),
            ).setServiceParent(node.apps)
        if options["metrics"]:
            MetricsService(
                reactor,
                vital(
                    serverFromString(reactor, listening(options["metrics"])),
                    f"--metrics {options['metrics']}",
                ),
                node.metricsText,
                lambda: node.status,
            ).setServiceParent(top)
        socket = options.socket()
        if socket is not None:
            LocalAPIService(reactor, socket, node).setServiceParent(node.apps)
        for port, path in options["serve-dir"]:
            FilesService(
                reactor,
                vital(node.serverEndpoint(port), f"--serve-dir {port}"),
                path,
                node.whois,
            ).setServiceParent(node.apps)
    except (ConfigError, ValueError, TypeError) as error:
        raise SystemExit(f"tsrt: {error}") from None
    for host in options["ping"]:
        PingService(reactor, node.ping, host).setServiceParent(node.apps)

    if not options["verbose"]:
        _Quieter(reactor).setServiceParent(top)
    node.setServiceParent(top)
    if options["status-file"]:
        StatusFileService(
            node.watchStatus, Path(options["status-file"])
        ).setServiceParent(top)
    if options["capture"]:
        CaptureService(
            node.capturePcap, Path(options["capture"]).expanduser(), giveUp
        ).setServiceParent(top)
    Supervisor(node, giveUp, ending.say).setServiceParent(top)
    HangUpService(reactor).setServiceParent(top)
    return top


class _Quieter(Service):
    """
    Keeps debug events, and Twisted's notes of every connection, out of the log.

    C{twistd} has no option for that, so its observers are wrapped, and stay so
    until the process ends.  C{twistd} has set them up by now; C{twist} does so
    when all services have been started.
    """

    def __init__(self, reactor: object) -> None:
        self._reactor = reactor
        self._wrapped: set[ILogObserver] = set()

    def startService(self) -> None:
        """Wrap the observers that are there now, and those that come."""
        super().startService()
        self._wrap()
        if IReactorCore.providedBy(self._reactor):
            self._reactor.callWhenRunning(self._wrap)

    def _wrap(self) -> None:
        predicate = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
        for namespace in _NOISY:
            predicate.setLogLevelForNamespace(namespace, LogLevel.warn)
        for observer in list(globalLogPublisher._observers):
            # A publisher collects what there is to say before logging begins,
            # and is taken out then.
            if observer in self._wrapped or isinstance(observer, LogPublisher):
                continue
            wrapped = FilteringLogObserver(observer, [predicate])
            self._wrapped.add(wrapped)
            globalLogPublisher.removeObserver(observer)
            globalLogPublisher.addObserver(wrapped)


_NOISY = (
    "twisted.application._client_service.ClientService",
    "twisted.internet.protocol",
    "twisted.web.client",
    "twisted.web.server",
)
