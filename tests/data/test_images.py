"""Decoding of image files of every mode, bit depth and orientation that Pillow opens; errors for unreadable ones."""

from __future__ import annotations

import sys
import types

import cv2
import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from bcnet.config import get_cfg
from bcnet.data import DatasetMapper, UnreadableImageError, image_array, read_image
from bcnet.data.images import MAX_IMAGE_PIXELS, open_image, to_rgb

ORIENTED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
    99: lambda pixels: pixels,
}


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


@pytest.fixture
def grey16():
    return np.random.default_rng(1).integers(0, 65536, (4, 6), dtype=np.uint16)


def photo() -> Image.Image:
    """A smooth image of 60 x 40 pixels, which lossy formats preserve well."""
    corners = np.random.default_rng(2).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(corners, (60, 40), interpolation=cv2.INTER_CUBIC))


def test_channel_orders(tmp_path, pixels):
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)
    np.testing.assert_array_equal(read_image(path), pixels[:, :, ::-1])
    with pytest.raises(ValueError, match="must be 'BGR' or 'RGB', got 'HSV'"):
        read_image(path, "HSV")


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("webp", {"lossless": True})],
)
def test_the_orientation_is_applied_once(tmp_path, pixels, orientation, suffix, options):
    if options.get("compression") and orientation == 99:
        pytest.skip("libtiff cannot write this")
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(pixels).save(path, exif=exif, **options)
    expected = ORIENTED[orientation](pixels)
    np.testing.assert_array_equal(read_image(path, "RGB"), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(image_array(image), expected)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        *[("1", "png"), ("1", "tif"), ("L", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("RGBA", "png")],
        *[("RGBA", "tif"), ("CMYK", "jpg"), ("CMYK", "tif"), ("RGB", "avif"), ("RGB", "jp2")],
        pytest.param(
            "YCbCr",
            "tif",
            marks=pytest.mark.skipif(
                int(PIL.__version__.partition(".")[0]) < 13,
                reason="Pillow 12 cannot read the YCbCr TIFF that it writes",
            ),
        ),
    ],
)
def test_modes_come_out_as_opencv_reads_them(tmp_path, mode, suffix):
    path = str(tmp_path / f"a.{suffix}")
    photo().convert(mode).save(path)
    expected = cv2.imread(path).astype(int)
    assert np.abs(read_image(path) - expected).max() <= 1  # rounding of colour conversions
    with Image.open(path) as image:
        assert image.mode == mode
        assert np.abs(image_array(image, wanted="BGR") - expected).max() <= 1


def test_a_palette_with_a_transparent_colour(tmp_path):
    path = str(tmp_path / "a.png")
    photo().convert("P", palette=Image.Palette.ADAPTIVE).save(path, transparency=3)
    np.testing.assert_array_equal(read_image(path), cv2.imread(path))


def test_lab_round_trip(tmp_path):
    photo().convert("LAB").save(tmp_path / "a.tif")
    assert np.abs(read_image(str(tmp_path / "a.tif"), "RGB") - np.asarray(photo()).astype(int)).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_reduced_to_the_upper_eight(tmp_path, grey16, suffix):
    path = str(tmp_path / f"a.{suffix}")
    cv2.imwrite(path, grey16)
    expected = np.repeat((grey16 >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(read_image(path), cv2.imread(path))
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(image_array(grey16), expected)
    np.testing.assert_array_equal(image_array(torch.from_numpy(grey16)[None]), expected)
    np.testing.assert_array_equal(image_array(Image.fromarray(grey16)), expected)
    np.testing.assert_array_equal(image_array(grey16.astype(">u2")), expected)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
def test_colours_of_sixteen_bits(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    values = np.random.default_rng(3).integers(0, 65536, (4, 6, 3), dtype=np.uint16)
    cv2.imwrite(path, values)
    assert np.abs(read_image(path) - cv2.imread(path).astype(int)).max() <= (suffix != "png")  # OpenCV rounds some
    np.testing.assert_array_equal(image_array(values, wanted="BGR"), values >> 8)


def test_twelve_bit_tiff(tmp_path):
    """Two pixels in three bytes, which Pillow reads and does not write."""
    import struct

    entries = [(256, 4, 2), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    entries += [(278, 4, 1), (279, 4, 3)]
    content = b"II*\0" + struct.pack("<I", 12) + bytes([0x80, 0x0F, 0xFF]) + b"\0"  # 0x800, 0xFFF
    content += struct.pack("<H", len(entries))
    content += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries) + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    assert read_image(str(tmp_path / "a.tif"))[0, :, 0].tolist() == [0x80, 0xFF]


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_values_of_unknown_range_are_rejected(tmp_path, dtype, mode):
    image = Image.fromarray(np.full((4, 6), 7, dtype))
    image.save(tmp_path / "a.tif")
    for source in (image, tmp_path / "a.tif"):
        with pytest.raises(UnreadableImageError, match=rf"\(mode '{mode}'\), of no known range; scale them to 8 or 16"):
            image_array(source)
    if dtype == np.int32:
        with pytest.raises(ValueError, match="got int32"):
            image_array(np.asarray(image))


def test_arrays_with_other_channels_are_their_images(pixels):
    grey = pixels[..., 0]
    expected = np.stack([grey] * 3, axis=2)
    for same in (grey, grey[..., None], Image.fromarray(grey), torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(image_array(same), expected)
    opaque = np.dstack([pixels, np.full((4, 6), 9, np.uint8)])
    for same in (opaque, Image.fromarray(opaque), torch.from_numpy(opaque).permute(2, 0, 1), opaque.astype(np.float32)):
        np.testing.assert_array_equal(image_array(same, "RGB"), pixels)
    np.testing.assert_array_equal(image_array(opaque[..., [2, 1, 0, 3]], "BGR"), pixels)
    black_and_white = Image.fromarray(grey > 127)
    np.testing.assert_array_equal(image_array(grey > 127), image_array(black_and_white))
    assert set(np.unique(image_array(black_and_white))) == {0, 255}


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", "avif"])
def test_the_first_of_several_frames(tmp_path, suffix):
    frames = [Image.new("RGB", (16, 16), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    found = read_image(str(tmp_path / f"a.{suffix}"), "RGB").astype(int)
    assert np.abs(found - [200, 0, 0]).max() <= 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "the file is empty"),
        (b"not an image", "not an image that Pillow knows"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "it is HEIC, which needs the package pillow-heif"),
        (b"\0\0\0\x18ftypmif1" + bytes(20), "it is HEIC, which needs the package pillow-heif"),
        (b"\xff\x0a" + bytes(20), "it is JPEG XL"),
        (b"\0\0\0\x20ftypisom" + bytes(20), "it is a video, and no image; if it was given as one, it is damaged"),
        (b"\x1aE\xdf\xa3" + bytes(20), "it is a video"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(20), "it is a video"),
    ],
)
def test_errors_of_unreadable_files_name_the_reason(tmp_path, monkeypatch, content, reason):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=rf"cannot read the image '.*broken.jpg': {reason}"):
        read_image(str(path))


def test_heic_is_read_where_its_package_is_installed(tmp_path, monkeypatch):
    """With a fake pillow-heif, which reads every file as one red pixel."""

    def register_heif_opener():
        factory = lambda file, name: file.close() or Image.new("RGB", (1, 1), "red")  # noqa: E731
        Image.register_open("HEIF", factory, lambda head: head[4:12] == b"ftypheic")

    identifiers = list(Image.ID)
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register_heif_opener))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    try:
        assert read_image(str(tmp_path / "a.heic"), "RGB").tolist() == [[[255, 0, 0]]]
    finally:
        Image.ID[:] = identifiers
        Image.OPEN.pop("HEIF", None)


def test_avif_of_a_pillow_that_cannot_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "AVIF"])
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x18ftypavif" + bytes(20))
    with pytest.raises(UnreadableImageError, match=r"a\.avif': it is AVIF, which needs Pillow 11\.3"):
        read_image(str(tmp_path / "a.avif"))


def test_truncated_images(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UnreadableImageError, match=r"cut.jpg"):
        read_image(str(path))
    with Image.open(path) as image, pytest.raises(UnreadableImageError, match=r"cut.jpg"):
        to_rgb(image)


def test_the_limit_on_pixels_is_configurable(tmp_path, monkeypatch):
    path = str(tmp_path / "large.png")
    Image.new("L", (30, 20)).save(path)
    with pytest.raises(UnreadableImageError, match=r"30 x 20 pixels are more than 599; INPUT\.MAX_IMAGE_PIXELS"):
        open_image(path, max_pixels=599)
    assert open_image(path, max_pixels=600).size == (30, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow rejects twice as many
    with pytest.raises(UnreadableImageError, match=r"large\.png.*INPUT\.MAX_IMAGE_PIXELS is the limit"):
        open_image(path, max_pixels=400)
    for limit in (0, 600, 10**9):
        assert open_image(path, max_pixels=limit).size == (30, 20)
    assert Image.MAX_IMAGE_PIXELS == 200
    cfg = get_cfg()
    assert cfg.INPUT.MAX_IMAGE_PIXELS == MAX_IMAGE_PIXELS
    cfg.INPUT.MAX_IMAGE_PIXELS = 100
    assert DatasetMapper.from_config(cfg, training=False).max_image_pixels == 100
