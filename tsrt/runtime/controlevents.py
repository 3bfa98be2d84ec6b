"""What the control client reports, and what follows from it for the node."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from tsrt.control.settings import Identity, LoginInfo
from tsrt.errors import TSRTError
from tsrt.interfaces import ILoginPrompt
from tsrt.keys import NodeKey
from tsrt.runtime.dispatch import NetmapDispatcher
from tsrt.runtime.identity import IdentityKeeper
from tsrt.runtime.lifecycle import Lifecycle
from tsrt.runtime.status import Health, StatusPublisher
from tsrt.tailcfg import MapResponse

_log = Logger(namespace="tsrt.control")


class ControlEvents:
    """Implements L{tsrt.control.observer.ControlObserver}."""

    def __init__(
        self,
        *,
        keeper: IdentityKeeper,
        lifecycle: Lifecycle,
        publisher: StatusPublisher,
        health: Health,
        prompt: ILoginPrompt,
        dispatcher: NetmapDispatcher,
        useNodeKey: Callable[[NodeKey], object],
        newPoll: Callable[[], object],
    ) -> None:
        """
        @param useNodeKey: gives tunnels and relays another node key.
        @param newPoll: told that the next map response is a complete one.
        """
        self._keeper = keeper
        self._lifecycle = lifecycle
        self._publisher = publisher
        self._health = health
        self._prompt = prompt
        self._dispatcher = dispatcher
        self._useNodeKey = useNodeKey
        self._newPoll = newPoll
        self._prompted = False
        self._login: LoginInfo | None = None
        self._troubleLogged = ""

    def identityChanged(self, identity: Identity) -> None:
        """Save the keys before they are used."""
        self._keeper.save(identity, self._login)

    def nodeKeyChanged(self, identity: Identity) -> None:
        """Control accepted the key: use it."""
        if identity.nodeKey is not None:
            self._useNodeKey(identity.nodeKey)

    def loginURL(self, url: str) -> None:
        """A person has to open a page."""
        self._prompted = True
        self._lifecycle.loginRequired(url)
        self._prompt.loginRequired(url)

    def approvalNeeded(self) -> None:
        """An administrator has to act."""
        if not self._prompted:
            self._prompt.approvalRequired()
        self._prompted = True
        self._lifecycle.approvalRequired()

    def registered(self, login: LoginInfo) -> None:
        """The node was let in."""
        self._login = login
        self._health.set("control", None)
        self._publisher.update(user=login.loginName)
        if self._prompted:
            self._prompted = False
            self._prompt.loginCompleted()
        self._lifecycle.registered()

    def mapStarted(self, resumed: bool) -> None:
        """A map stream begins."""
        if not resumed:
            self._newPoll()

    def mapResponse(self, response: MapResponse) -> None:
        """The netmap changed."""
        self._dispatcher.apply(response)

    def mapAlive(self, alive: bool) -> None:
        """The map stream works, or does no more."""
        self._health.set(
            "control-map",
            None if alive else "not connected to the control server; trying again",
        )
        if alive:
            self._troubleLogged = ""
            self._health.set("control", None)

    def openURL(self, url: str) -> None:
        """Control wants the user to see a page."""
        _log.info("the control server asks to open {url}", url=url)

    def trouble(self, error: TSRTError) -> None:
        """Something failed and is tried again."""
        self._health.set("control", error.describe())
        text = str(error)
        if text != self._troubleLogged:
            self._troubleLogged = text
            _log.warn("{reason}; trying again", reason=text)
        else:
            _log.debug("{reason}; trying again", reason=text)

    def failed(self, error: TSRTError) -> None:
        """Nothing more is tried."""
        self._lifecycle.failed(error)
