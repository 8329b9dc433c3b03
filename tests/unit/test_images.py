"""Pictures of every kind become upright RGB, resized exactly as open-clip does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from secondglance.errors import MediaError
from secondglance.ingest.exif import picture_facts
from secondglance.ingest.images import Preprocessing, load_rgb, resize
from secondglance.media.pictures import open_picture

LIMIT = 178_956_970


def read(path: Path, max_pixels: int = LIMIT) -> Image.Image:
    with open_picture(path, max_pixels=max_pixels) as image:
        return load_rgb(image)


def gradient(width: int = 90, height: int = 60) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    ("suffix", "tolerance"),
    [
        (".jpg", 40),
        (".png", 0),
        (".webp", 60),
        (".bmp", 0),
        (".tiff", 0),
        (".gif", 80),
        (".avif", 60),
    ],
)
def test_reads_the_common_formats(tmp_path: Path, suffix: str, tolerance: int) -> None:
    path = tmp_path / f"picture{suffix}"
    gradient().save(path)
    found = read(path)
    assert found.mode == "RGB"
    assert found.size == (90, 60)
    difference = np.abs(np.asarray(found, int) - np.asarray(gradient(), int)).mean()
    assert difference <= tolerance / 4


def test_reads_heic_where_the_extra_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    pillow_heif.register_heif_opener()
    gradient().save(tmp_path / "picture.heic")
    assert read(tmp_path / "picture.heic").size == (90, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), "blue")
    upright.paste("red", (0, 0, 16, 16))
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    found = read(tmp_path / "turned.png")
    assert np.array_equal(np.asarray(found), np.asarray(upright))
    with open_picture(tmp_path / "turned.png", max_pixels=LIMIT) as image:
        said = picture_facts(image).values
    assert (said["width"], said["height"]) == (64, 32)


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "half.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 255, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert read(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert read(tmp_path / "half.png").getpixel((0, 0)) == (127, 127, 127)
    assert read(tmp_path / "palette.png").getpixel((0, 0)) == (255, 255, 255)


def test_cmyk_16_bit_and_float_become_8_bit(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    red = read(tmp_path / "cmyk.jpg").getpixel((0, 0))
    assert isinstance(red, tuple)
    assert red[0] > 240
    assert max(red[1:]) < 15
    sixteen = np.full((8, 8), 40_000, dtype=np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "deep.png")
    assert read(tmp_path / "deep.png").getpixel((0, 0)) == (156, 156, 156)
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "float.tiff")
    assert read(tmp_path / "float.tiff").getpixel((0, 0)) == (128, 128, 128)


def test_refuses_what_is_too_large_or_no_picture(tmp_path: Path) -> None:
    Image.new("1", (1000, 1000)).save(tmp_path / "large.png")
    with pytest.raises(MediaError, match=r"1000x1000 is over the limit of 999 pixels.*max_pixels"):
        read(tmp_path / "large.png", max_pixels=999)
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(MediaError, match="not a picture"):
        read(tmp_path / "page.jpg")
    whole = tmp_path / "whole.png"
    gradient(400, 400).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:600])
    with pytest.raises(MediaError, match="damaged picture"):
        read(tmp_path / "cut.png")


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize(
    "size", [(90, 60), (61, 90), (33, 400), (400, 33), (64, 64), (1, 1), (301, 299)]
)
def test_resizes_as_open_clip_does(mode: str, size: tuple[int, int]) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    picture = gradient(*size)
    config = PreprocessCfg(size=64, resize_mode=mode, interpolation="bicubic")
    expected = image_transform_v2(config, is_train=False)(picture)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (config.mean, config.std))
    expected_pixels = np.asarray(expected) * std + mean
    spec = Preprocessing(height=64, width=64, resize_mode=mode)  # type: ignore[arg-type]
    found = resize(picture, spec)
    assert found.dtype == np.uint8
    assert found.shape == (64, 64, 3)
    # Very long strips are cropped before they are resized: the same crop, rounded otherwise.
    tolerance = 3 / 255 if max(size) > 4 * min(size) else 1e-5
    assert np.abs(found.transpose(2, 0, 1) / 255 - expected_pixels).max() <= tolerance


def test_draft_decoding_keeps_what_the_embedder_sees(tmp_path: Path) -> None:
    gradient(2000, 1500).save(tmp_path / "large.jpg", quality=95)
    spec = Preprocessing(height=224, width=224)
    with open_picture(tmp_path / "large.jpg", max_pixels=LIMIT) as image:
        quick = load_rgb(image, draft_size=(448, 448))
    assert quick.size == (1000, 750)
    full = resize(read(tmp_path / "large.jpg"), spec)
    assert np.abs(resize(quick, spec).astype(int) - full.astype(int)).mean() < 2
