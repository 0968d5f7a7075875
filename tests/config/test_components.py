"""Signatures and class attributes are read from source, without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from vitexp.config.components import MISSING, component

MINE = """
from __future__ import annotations
import vitexp.models.vit as vit
from typing import Annotated, ClassVar, Literal
from vitexp.models import ViT
from vitexp.options import Doc, Rate

Kind = Literal["a", "b"]

class Open(ViT):
    has_blocks: ClassVar[bool] = False
    colors = ("red", "blue")
    def __init__(self, *, strength: Annotated[Rate, Doc("how strong")] = 0.5, kind: Kind = "a", net: Unknown, **more):
        pass

class Same(vit.ViT):
    pass

class Closed(ViT):
    def __init__(self, *, only: int):
        pass
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "written_by_a_user.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return "written_by_a_user"


def test_a_subclass_inherits_options_through_kwargs_and_facts_always(mine: str) -> None:
    vit, read = component("vitexp.models.ViT"), component(f"{mine}.Open")
    assert vit is not None and read is not None
    assert read.options.keys() >= vit.options.keys()
    assert read.options["kind"].type == Literal["a", "b"]
    assert (read.options["strength"].doc, read.options["strength"].default) == ("how strong", 0.5)
    assert read.options["net"].default is MISSING
    assert read.facts.items() >= {"has_blocks": False, "colors": ("red", "blue")}.items()
    same, closed = component(f"{mine}.Same"), component(f"{mine}.Closed")
    assert same is not None and same.options.keys() == vit.options.keys() and same.facts == vit.facts
    assert closed is not None and list(closed.options) == ["only"]


def test_what_has_no_source_is_unknown() -> None:
    assert component("builtins.dict") is None
    assert component("no.such.Thing") is None


def test_reading_imports_neither_torch_nor_the_module() -> None:
    probe = (
        "import sys; from vitexp.config.components import component; "
        "assert {'lr', 'betas'} <= set(component('torch.optim.AdamW').options); "
        "assert component('vitexp.models.ViT').options['stem'].default == 'patch'; "
        "sys.exit(bool({'torch', 'vitexp.models'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
