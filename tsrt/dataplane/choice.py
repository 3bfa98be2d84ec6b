"""
Which tier of the data plane is in use: the fastest that can be had.

The choice is made once, when this module is imported.  The environment variable
C{TSRT_DATAPLANE} names another one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

from tsrt.dataplane.interface import Tier
from tsrt.dataplane.plain import PlainTier
from tsrt.errors import NotSupported

VARIABLE = "TSRT_DATAPLANE"
"""The environment variable that names a tier."""


def _compiled() -> Tier:
    from tsrt.dataplane.compiled import CompiledTier

    return CompiledTier()


def _fast() -> Tier:
    from tsrt.dataplane.fast import FastTier

    return FastTier()


TIERS: dict[str, Callable[[], Tier]] = {
    "compiled": _compiled,
    "fast": _fast,
    "plain": PlainTier,
}
"""
What makes each tier, the fastest first; raises C{ImportError} if something is not
there, and anything if it is and does not work.
"""


def chooseTier(name: str = "") -> Tier:
    """
    Make a tier.

    @param name: which one; empty for the fastest that can be had.
    @raise NotSupported: if that one cannot be had, or does not exist.
    """
    if name and name not in TIERS:
        raise NotSupported(
            f"{VARIABLE}={name} names no tier of the data plane; "
            f"there are {', '.join(TIERS)}"
        )
    for candidate, make in TIERS.items():
        if name in ("", candidate):
            try:
                return make()
            except Exception as error:
                # NumPy, for one, is not content with every processor.
                if name:
                    raise NotSupported(
                        f"the {name} tier of the data plane cannot be had: {error}"
                    ) from error
                if not isinstance(error, ImportError):
                    warnings.warn(
                        f"the {candidate} tier of the data plane does not work, so "
                        f"that a slower one is used: {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
    raise AssertionError("the plain tier can always be had")


TIER = chooseTier(os.environ.get(VARIABLE, ""))
"""The tier in use."""
