"""
The file of test vectors, and how tests say which of them they exercise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

FILE = Path(__file__).parent / "vectors" / "vectors.json"
VECTORS: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["vectors"]

hexa = bytes.fromhex
Test = TypeVar("Test", bound=Callable[..., None])


def covers(*names: str) -> Callable[[Test], Test]:
    """Mark a test as one that exercises these vectors."""

    def mark(test: Test) -> Test:
        test.covers = names  # type: ignore[attr-defined]  # read by CoverageTests
        return test

    return mark


def fixed(*values: bytes) -> Callable[[int], bytes]:
    """A source of "random" bytes that gives these values in turn."""
    left = list(values)

    def randbytes(count: int) -> bytes:
        value = left.pop(0)
        assert len(value) == count
        return value

    return randbytes
