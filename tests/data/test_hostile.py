"""A folder of everything that a download, a camera or an enemy may leave there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.hostile import KINDS, RGB, Kind
from vitexp.data.imagefile import list_images, read_image
from vitexp.data.source import BrokenImage

def test_there_are_more_than_sixty_kinds() -> None:
    assert len(KINDS) == len({kind.name for kind in KINDS}) > 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ascii(kind.name[:40]))
def test_every_kind_is_seen_right_or_refused_by_name(
    tmp_path: Path, kind: Kind, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / kind.name
    kind.make(path)
    listed = kind.name in [file.path for file in list_images(tmp_path, "")]
    assert listed == (kind.expected is not None)
    if isinstance(kind.expected, str):
        with pytest.raises(BrokenImage, match=kind.expected) as caught:
            read_image(path)
        sentence = str(caught.value)
        assert (str(path) if str(path).isprintable() else ascii(str(path))) in sentence
        assert sentence.isprintable() and sentence.endswith(".") and not sentence.endswith("..")
    elif kind.expected is not None:
        seen = read_image(path)
        assert seen.dtype == np.uint8 and seen.shape == kind.expected.shape and seen.flags.writeable
        assert np.abs(seen.astype(int) - kind.expected).max() <= kind.tolerance
    assert capfd.readouterr() == ("", "")
