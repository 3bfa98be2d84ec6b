"""What a user may change while a node runs, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, field, fields, frozen

from tsrt.addresses import Prefix
from tsrt.config import (
    NodeConfig,
    checkHostname,
    checkTags,
    toRoutes,
    toTexts,
)
from tsrt.errors import ConfigError
from tsrt.netmap.exitnode import ExitNodeSelector
from tsrt.netmap.forwarding import advertisedPrefixes


def _toSelector(
    value: ExitNodeSelector | str | None,
) -> ExitNodeSelector | None:
    if value is None or isinstance(value, ExitNodeSelector):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"{value!r} names no exit node")
    return ExitNodeSelector.parse(value) if value else None


def _checkBool(instance: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} is either True or False, not {value!r}")


def _checkHostname(instance: object, attribute: object, value: str) -> None:
    checkHostname(value)


@frozen(kw_only=True)
class Preferences:
    """
    What the user wants, by the names of C{tailscale set}.

    @ivar hostname: the name that the node asks for.
    @ivar acceptRoutes: whether networks behind other nodes are reached through
        them.
    @ivar exitNode: the peer through which everything else goes that is sent to
        the tailnet; C{None}: it goes nowhere.
    @ivar exitNodeAllowLANAccess: whether connections to the private networks that
        this machine is in go there directly while an exit node is wanted.
    @ivar acceptDNS: whether the tailnet's DNS settings hold for names; those of
        nodes are known in any case.
    @ivar advertiseTags: the tags that the node asks for.  Control may grant them
        only as the node logs in, see C{Node.login}.
    @ivar shieldsUp: whether to let nobody begin anything with this node.
    @ivar advertiseRoutes: the networks that this node leads to, as prefixes or
        their texts.
    @ivar advertiseExitNode: whether it offers to be an exit node; what it then
        does with what others send is fixed by C{NodeConfig.forwardExitEgress}.
    """

    hostname: str = field(validator=_checkHostname)
    acceptRoutes: bool = field(default=False, validator=_checkBool)
    exitNode: ExitNodeSelector | None = field(default=None, converter=_toSelector)
    exitNodeAllowLANAccess: bool = field(default=False, validator=_checkBool)
    acceptDNS: bool = field(default=True, validator=_checkBool)
    advertiseTags: tuple[str, ...] = field(
        default=(), converter=toTexts, validator=checkTags
    )
    shieldsUp: bool = field(default=False, validator=_checkBool)
    advertiseRoutes: tuple[Prefix, ...] = field(default=(), converter=toRoutes)
    advertiseExitNode: bool = field(default=False, validator=_checkBool)

    @property
    def advertised(self) -> tuple[Prefix, ...]:
        """All prefixes that control is told of, and that are forwarded (R-GLB-6)."""
        return advertisedPrefixes(self.advertiseRoutes, self.advertiseExitNode)

    @classmethod
    def of(cls, config: NodeConfig) -> Preferences:
        """Those that a node begins with."""
        return cls(
            hostname=config.hostname,
            acceptRoutes=config.acceptRoutes,
            exitNode=config.exitNode,
            exitNodeAllowLANAccess=config.exitNodeAllowLANAccess,
            acceptDNS=config.acceptDNS,
            advertiseTags=config.advertiseTags,
            shieldsUp=config.shieldsUp,
            advertiseRoutes=config.advertiseRoutes,
            advertiseExitNode=config.advertiseExitNode,
        )

    def changed(self, changes: dict[str, Any]) -> Preferences:
        """
        The same with some of them changed.

        @raise ConfigError: there is no such preference, or no such value.
        """
        known = [attribute.name for attribute in fields(Preferences)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise ConfigError(
                f"there is no preference {', '.join(unknown)}",
                advice=f"Known are: {', '.join(known)}.",
            )
        return evolve(self, **changes)


class PreferenceCell:
    """
    Holds the preferences of a node; only the node itself writes to it.

    It outlives starts and stops (rule R-ENV-2: all others read).
    """

    def __init__(self, preferences: Preferences) -> None:
        self._value = preferences
        self._tell: Callable[[Preferences, Preferences], object] | None = None
        self._watchers: list[Callable[[Preferences], object]] = []

    @property
    def value(self) -> Preferences:
        """The preferences at present."""
        return self._value

    def attach(self, tell: Callable[[Preferences, Preferences], object] | None) -> None:
        """
        Say who acts on changes.

        @param tell: called with the former and the new ones; C{None}: nobody.
        """
        self._tell = tell

    def watch(self, watcher: Callable[[Preferences], object]) -> None:
        """Tell C{watcher} of changes, too, whether the node runs or not."""
        self._watchers.append(watcher)

    def change(self, changes: dict[str, Any]) -> None:
        """
        Change some of them.

        @raise ConfigError: see L{Preferences.changed}; nothing was changed.
        """
        former, self._value = self._value, self._value.changed(changes)
        if former == self._value:
            return
        if self._tell is not None:
            self._tell(former, self._value)
        for watcher in self._watchers:
            watcher(self._value)
