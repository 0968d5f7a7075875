"""A folder with everything that a download, a camera or an attacker may leave there."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import command, result
from tests.data.encode import chunk as png_chunk
from tests.data.encode import encoded, png_of, webp_of, zeros
from tests.data.hostile import KINDS, Kind
from tests.data.noise import resize
from vitexp.data.folder import Folder
from vitexp.data.imagefile import read_image
from vitexp.data.listing import list_images
from vitexp.data.prepare import prepare
from vitexp.data.source import BrokenImage

GOOD = [kind.name for kind in KINDS if isinstance(kind.expected, np.ndarray)]
BROKEN = [kind.name for kind in KINDS if isinstance(kind.expected, str)]


def test_there_are_more_than_sixty_kinds() -> None:
    assert len(KINDS) == len({kind.name for kind in KINDS}) > 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ascii(kind.name[:40]))
def test_every_kind_is_decoded_correctly_or_refused_by_name(
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


def _hostile(root: Path) -> Path:
    """A data set whose first class has a file of every kind; the others have twelve good ones."""
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (root / folder).mkdir(parents=True)
    good = [kind for kind in KINDS if kind.name in GOOD]
    for kind in KINDS:
        kind.make(root / "train" / "a" / kind.name)
    for folder in ("train/b", "test/a", "test/b"):
        for kind in good[:12]:
            kind.make(root / folder / kind.name)
    return root


@pytest.mark.slow
def test_a_hostile_folder_is_prepared_without_the_broken_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = Folder(root=str(_hostile(tmp_path / "data"))).split("train")
    how = {"name": "hostile", "image_size": 8, "cache_dir": tmp_path / "cache", "num_workers": 0}
    with caplog.at_level(logging.WARNING):
        made = prepare(split, resize(), on_broken="skip", **how)  # type: ignore[arg-type]
    assert np.bincount(made.labels).tolist() == [len(GOOD), 12]
    skipped = [record.getMessage() for record in caplog.records if "Skipped: " in record.getMessage()]
    assert len(skipped) == len(BROKEN)
    assert all("train/a/" in line and line.isprintable() for line in skipped)
    with pytest.raises(BrokenImage, match="train/a/"):
        prepare(split, resize(), on_broken="refuse", **how)  # type: ignore[arg-type]


READ = """
import re, sys, time
from pathlib import Path
from vitexp.data.imagefile import read_image
from vitexp.data.listing import list_images
from vitexp.data.source import BrokenImage

for file in list_images(Path(sys.argv[1]), ""):
    start = time.process_time()
    try:
        read_image(Path(sys.argv[1]) / file.path)
    except BrokenImage:
        pass
    seconds = time.process_time() - start
    # not ru_maxrss, which includes the process before exec
    memory = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
    print(f"{seconds:.1f} {memory}", ascii(file.path))
"""


def _costs(folder: Path) -> tuple[float, int]:
    """Return the seconds of the slowest image of a folder, and the MiB of memory for all."""
    read = subprocess.run([sys.executable, "-c", READ, folder], capture_output=True, text=True, check=True, timeout=500)
    costs = [line.split(maxsplit=2) for line in read.stdout.splitlines()]
    return max(float(seconds) for seconds, *_ in costs), max(int(memory) for _, memory, _ in costs)


def test_decompression_bombs_take_little_time_and_memory(tmp_path: Path) -> None:
    for kind in KINDS:
        kind.make(tmp_path / kind.name)
    seconds, memory = _costs(tmp_path)
    assert seconds < 5 and memory < 400


@pytest.mark.soak
def test_the_largest_allowed_images_do_not_need_gigabytes(tmp_path: Path) -> None:
    side = 8191
    exif = Image.Exif()
    exif[0x0112] = 6
    large: dict[str, Callable[[], bytes]] = {
        f"{depth}-{colour}.png": lambda depth=depth, colour=colour, channels=channels: png_of(
            side, side, depth, colour, png_chunk(b"IDAT", zeros(side * (1 + side * channels * depth // 8)))
        )
        for depth, colour, channels in ((16, 0, 1), (16, 4, 2), (8, 6, 4), (16, 6, 4))
    }
    large["turned.jpg"] = lambda: encoded(Image.new("RGB", (side, side)), "JPEG", exif=exif)
    large["inks.jpg"] = lambda: encoded(Image.new("CMYK", (side, side)), "JPEG")
    large["canvas.webp"] = lambda: webp_of(side, side)
    for name, content in large.items():
        (tmp_path / name).write_bytes(content())
        assert read_image(tmp_path / name).shape == (side, side, 3)
    seconds, memory = _costs(tmp_path)
    assert seconds < 60 and memory < 1400


@pytest.mark.slow
@pytest.mark.parametrize("on_broken", ["skip", "refuse"])
def test_a_run_on_a_hostile_folder(tmp_path: Path, on_broken: str) -> None:
    root = _hostile(tmp_path / "data")
    overrides = ["data=folder", f"data.root={root}", f"data.on_broken={on_broken}", "data.batch_size=8"]
    own = [word for word in command(tmp_path / "logs", *overrides) if "_per_class" not in word]
    done = subprocess.run(own, capture_output=True, text=True, timeout=300)
    if on_broken == "skip":
        assert done.returncode == 0, done.stderr
        [run] = (tmp_path / "logs").glob("*/*")
        assert result(run)["status"] == "completed"
        told = (run / "train.log").read_text()
        assert told.count("Skipped: ") == len(BROKEN)
    else:
        assert done.returncode == 2
        assert f"{len(BROKEN)} of " in done.stderr and "images cannot be decoded; fix" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
