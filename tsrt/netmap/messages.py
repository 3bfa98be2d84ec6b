"""What control wants the user to see."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tsrt.tailcfg import DisplayMessage, MapResponse

_ALL = "*"
_TITLE = "Coordination server reports an issue"


class MessageBook:
    """
    The messages in force.

    There are two forms: titled messages by names, and a list of texts, which
    older servers send and which counts only where there is none of the others.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._named: dict[str, DisplayMessage] = {}

    def clear(self) -> None:
        """A poll begins: what it does not tell does not hold."""
        self._texts = []
        self._named = {}

    def apply(self, response: MapResponse) -> None:
        """Take from a response what it says of messages."""
        if isinstance(response.health, list):
            self._texts = list(response.health)
        named = response.displayMessages
        if not isinstance(named, dict):
            return
        if _ALL in named and named[_ALL] is None:
            self._named = {}
        for key, message in named.items():
            if message is not None:
                self._named[key] = message
            else:
                self._named.pop(key, None)

    @property
    def messages(self) -> Mapping[str, DisplayMessage]:
        """The messages by their names."""
        if self._named:
            return dict(sorted(self._named.items()))
        return {
            f"health-{hashlib.sha256(text.encode()).hexdigest()}": DisplayMessage(
                title=_TITLE, text=text, severity="medium"
            )
            for text in self._texts
        }

    @property
    def texts(self) -> tuple[str, ...]:
        """The messages as sentences."""
        if self._named:
            return tuple(
                ": ".join(part for part in (message.title, message.text) if part)
                for message in self.messages.values()
            )
        return tuple(self._texts)
