"""
tsrt: a Tailscale node in Python on Twisted.

The public names are loaded on first use, so that importing a pure part such
as L{tsrt.wire} does not import Twisted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsrt._version import __version__

if TYPE_CHECKING:
    from tsrt.config import NodeConfig, Seams
    from tsrt.errors import TSRTError
    from tsrt.keys import Secret
    from tsrt.node import Node
    from tsrt.overlay.fallback import REFUSE
    from tsrt.runtime.status import NodeStatus
    from tsrt.state import FileStateStore, MemoryStateStore

__all__ = [
    "REFUSE",
    "FileStateStore",
    "MemoryStateStore",
    "Node",
    "NodeConfig",
    "NodeStatus",
    "Seams",
    "Secret",
    "TSRTError",
    "__version__",
]

_HOMES = {
    "FileStateStore": "tsrt.state",
    "MemoryStateStore": "tsrt.state",
    "Node": "tsrt.node",
    "NodeConfig": "tsrt.config",
    "NodeStatus": "tsrt.runtime.status",
    "REFUSE": "tsrt.overlay.fallback",
    "Seams": "tsrt.config",
    "Secret": "tsrt.keys",
    "TSRTError": "tsrt.errors",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module where it lives (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'tsrt' has no attribute {name!r}") from None
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
