"""The named packet filters that control keeps, and what they come to."""

from __future__ import annotations

from tsrt.netmap.rules import RuleSet, compileRules
from tsrt.tailcfg import FilterRule, MapResponse

_BASE = "base"
_ALL = "*"


class FilterStore:
    """
    Named lists of rules; together they are the packet filter.

    Without any nothing is let in (rule R-PF-1).
    """

    def __init__(self) -> None:
        self._filters: dict[str, list[FilterRule]] = {}
        self._compiled: RuleSet | None = None

    def clear(self) -> None:
        """A poll begins: filters that it does not tell are gone."""
        self._filters = {}
        self._compiled = None

    def apply(self, response: MapResponse) -> bool:
        """
        Take from a response what it says of filters.

        The older, unnamed one counts as the filter C{base}, and as older than
        the named ones of the same response.  The name C{*} stands for all of
        them, and can only be taken away (rule R-PF-2).

        @return: whether it says anything.
        """
        single, named = response.packetFilter, response.packetFilters
        if isinstance(single, list):
            self._filters[_BASE] = single
        elif not named:
            return False
        self._compiled = None
        for name, rules in (named or {}).items():
            if name == _ALL and rules is None:
                self._filters = {}
        for name, rules in (named or {}).items():
            if name == _ALL:
                continue
            if rules:
                self._filters[name] = rules
            else:
                self._filters.pop(name, None)
        return True

    @property
    def rules(self) -> RuleSet:
        """All rules, compiled; made when first asked for."""
        if self._compiled is None:
            self._compiled = compileRules(
                rule for name in sorted(self._filters) for rule in self._filters[name]
            )
        return self._compiled
