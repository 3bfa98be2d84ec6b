"""Settings of the documentation build."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

import tsrt

project = "tsrt"
copyright = "2026, the tsrt developers"
author = "the tsrt developers"
release = version = tsrt.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.intersphinx"]
html_theme = "furo"
html_title = "tsrt"
exclude_patterns = ["_build"]
nitpicky = False
# Only what is already on this machine is read: a build needs no network.
intersphinx_mapping: dict[str, tuple[str, str | None]] = {}
autodoc_member_order = "bysource"
autodoc_typehints = "none"


# -- epytext, which the docstrings are written in, as reStructuredText --------------

_FIELD = re.compile(r"^(\s*)@(param|ivar|cvar|return|raise|see)\b ?([^:]*):(.*)$")
_MARKUP = re.compile(r"[LCI]\{([^{}]*)\}")


def fromEpytext(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Rewrite the lines of one docstring in place."""
    converted: list[str] = []
    inFields = False
    for line in lines:
        line = _MARKUP.sub(r"``\1``", line)
        field = _FIELD.match(line)
        if field:
            if not inFields:
                converted.append("")
            inFields = True
            indent, kind, argument, text = field.groups()
            kind = {"raise": "raises", "cvar": "ivar", "see": "see"}.get(kind, kind)
            head = f"{kind} {argument}".strip()
            converted.append(f"{indent}:{head}:{text}")
        else:
            if inFields and line and not line.startswith(" "):
                converted.append("")
                inFields = False
            converted.append(line)
    lines[:] = [*converted, ""]


def setup(app: Sphinx) -> None:
    """Connect the conversion."""
    app.connect("autodoc-process-docstring", fromEpytext)
