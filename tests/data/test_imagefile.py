from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitexp.data import imagefile
from vitexp.data.imagefile import as_rgb, read_image
from vitexp.data.listing import list_images
from vitexp.data.source import BrokenImage, DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "ppm", "bmp"])
def test_reads_what_was_written(tmp_path: Path, ending: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"x.{ending}")
    image = read_image(tmp_path / f"x.{ending}")
    np.testing.assert_array_equal(image, PIXELS)
    assert image.dtype == np.uint8 and image.flags.writeable


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_reads_lossy_formats(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"x.{ending}")
    assert np.abs(read_image(tmp_path / f"x.{ending}").astype(int) - (200, 100, 50)).max() <= 4


def test_grey_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize("ending", ["png", "ppm"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, ending: str) -> None:
    grey = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"x.{ending}")
    assert read_image(tmp_path / f"x.{ending}")[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


def test_transparent_is_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    rgba.putpixel((1, 0), (10, 20, 30, 255))
    rgba.save(tmp_path / "rgba.png")
    assert read_image(tmp_path / "rgba.png").tolist() == [[[255, 255, 255], [10, 20, 30]]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(PIXELS, k=-1))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "AVIF", "WEBP", "PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_opened_image_gives_the_pixels_of_its_file(tmp_path: Path, kind: str, mode: str) -> None:
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 250)
    exif = Image.Exif()
    exif[0x0112] = 6
    try:
        (deep if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)).save(tmp_path / "x", kind, exif=exif)
    except (OSError, ValueError, KeyError):
        pytest.skip(f"{kind} has no {mode}")
    with Image.open(tmp_path / "x") as image:
        np.testing.assert_array_equal(as_rgb(image), read_image(tmp_path / "x"))


def test_heic_is_read_turned_upright_on_white(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="reading HEIC needs pillow-heif")
    assert {".heic", ".heif"} < set(imagefile.ENDINGS)
    pillow_heif.register_heif_opener()
    blocks = (
        np.array([[[200, 40, 40], [40, 200, 40]], [[40, 40, 200], [90, 90, 90]]], np.uint8).repeat(32, 0).repeat(32, 1)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(blocks)))
    stored.save(tmp_path / "IMG_1.JPG", "HEIF", quality=-1, exif=exif.tobytes())  # phones rename files
    assert np.abs(read_image(tmp_path / "IMG_1.JPG").astype(int) - blocks).max() <= 4
    clear = Image.new("RGBA", (64, 64), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.heic", quality=-1)
    assert read_image(tmp_path / "clear.heic").min() >= 253
    with Image.open(tmp_path / "IMG_1.JPG") as image:
        np.testing.assert_array_equal(as_rgb(image), read_image(tmp_path / "IMG_1.JPG"))
    (tmp_path / "cut.heic").write_bytes((tmp_path / "clear.heic").read_bytes()[:300])
    with pytest.raises(BrokenImage, match=r"cut\.heic"):
        read_image(tmp_path / "cut.heic")


def test_a_heic_file_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagefile, "HAS_HEIC", False)
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(BrokenImage, match=r"x\.jpg: HEIC images need one more package: pip install pillow-heif\.$"):
        read_image(tmp_path / "x.jpg")


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS.repeat(20, 0).repeat(20, 1)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded("ICO"), b"P6\n2 2\n255\nab"]
    + [encoded(kind)[:-size] for kind in ("PNG", "JPEG", "PPM", "BMP", "WEBP") for size in (100, 500)]
    + [encoded("PNG")[:60] + b"x" * 9 + encoded("PNG")[69:]],
)
def test_broken_images_are_named(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(BrokenImage, match=r"broken\.png"):
        read_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_huge_image_is_refused_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6\n12000 10000\n255\n")
    with warnings.catch_warnings(record=True) as shown, pytest.raises(BrokenImage, match=r"12000 x 10000 pixels"):
        read_image(path)
    assert shown == []
    path.write_bytes(b"P6\n120000 100000\n255\n")
    with pytest.raises(BrokenImage, match="pixels"):
        read_image(path)


def test_a_missing_file_is_not_a_broken_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.png: No such file") as caught:
        read_image(tmp_path / "gone.png")
    assert not isinstance(caught.value, BrokenImage)


def test_lists_images_only(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.Ppm", ".hidden.png", "notes.txt", "d.webp.part"):
        (tmp_path / name).write_bytes(b"12")
    (tmp_path / "folder.png").mkdir()
    assert [(file.path, file.size) for file in list_images(tmp_path, "")] == [("a.jpeg", 2), ("b.PNG", 2), ("c.Ppm", 2)]


def test_unreadable_files_are_listed_too(tmp_path: Path) -> None:
    path = tmp_path / "e.png"
    path.symlink_to(tmp_path / "f.png")
    before = list_images(tmp_path, "")
    assert [file.path for file in before] == ["e.png"]
    Image.fromarray(PIXELS).save(tmp_path / "f.png")
    assert list_images(tmp_path, "")[0] != before[0]


def test_running_out_of_memory_is_not_a_broken_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", refuse)
    Path(tmp_path / "x.png").write_bytes(b"12")
    with pytest.raises(DataError, match=r"not enough memory to decode the image .*x\.png") as caught:
        read_image(tmp_path / "x.png")
    assert not isinstance(caught.value, BrokenImage)


@pytest.mark.parametrize("flips", [60, pytest.param(2000, marks=pytest.mark.soak)])
def test_a_corrupted_png_never_decodes_to_other_pixels(tmp_path: Path, flips: int) -> None:
    dice, path = random.Random(0), tmp_path / "x.png"
    smooth = np.linspace(0, 255, 40 * 40 * 3).reshape(40, 40, 3).astype(np.uint8)
    for pixels in (PIXELS, smooth):
        Image.fromarray(pixels).save(path)
        whole = path.read_bytes()
        for _ in range(flips // 2):
            content = bytearray(whole)
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
            path.write_bytes(content)
            try:
                seen = read_image(path)
            except BrokenImage:
                continue
            np.testing.assert_array_equal(seen, pixels)
