"""Where the configuration files are."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

# Beside the package in a clone, inside it in an installed wheel.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
