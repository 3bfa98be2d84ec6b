"""
Which node of this process an endpoint string means.

One table a reactor, from node names to nodes.  It holds no node alive that
nobody else does.
"""

from __future__ import annotations

from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

T = TypeVar("T")

DEFAULT_NAME = "main"


class Registry(Generic[T]):
    """Named objects for each reactor."""

    def __init__(self) -> None:
        self._tables: WeakKeyDictionary[object, WeakValueDictionary[str, T]]
        self._tables = WeakKeyDictionary()

    def find(self, reactor: object, name: str) -> T | None:
        """The node of that name, if there is one."""
        table = self._tables.get(reactor)
        return None if table is None else table.get(name)

    def add(self, reactor: object, name: str, node: T) -> bool:
        """
        Give C{node} the name, unless another has it.

        @return: whether C{node} has the name now.
        """
        table = self._tables.setdefault(reactor, WeakValueDictionary())
        return table.setdefault(name, node) is node

    def remove(self, reactor: object, name: str, node: T) -> None:
        """Take the name away from C{node}, if C{node} has it."""
        table = self._tables.get(reactor)
        if table is not None and table.get(name) is node:
            del table[name]

    def names(self, reactor: object) -> list[str]:
        """All names in use on C{reactor}."""
        return sorted(self._tables.get(reactor, {}))
