"""Settings of the documentation build."""

from __future__ import annotations

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
