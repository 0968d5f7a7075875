"""The folder of the configuration files."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

# Next to the package in a clone, inside it in an installed wheel.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
