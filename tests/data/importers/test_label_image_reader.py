"""Reader of label images in the layouts of Penn-Fudan, Cellpose, StarDist, CVPPP and the Data Science Bowl."""

import numpy as np
import pytest
import tifffile
from importer_samples import box_mask, masks, read_one, same
from PIL import Image

from bcnet.data import load_dataset

SIZE = (10, 12)
BOXES = [(2, 1, 6, 4), (4, 2, 9, 8)]


def labels(values=(1, 2), dtype=np.uint8):
    image = np.zeros(SIZE, dtype=dtype)
    for (x0, y0, x1, y1), value in zip(BOXES, values, strict=True):
        image[y0:y1, x0:x1] = value
    return image


def flat():
    first, second = (box_mask(SIZE, *box) for box in BOXES)
    return [first & ~second, second]


@pytest.mark.parametrize(
    "spec, mask, image",
    [
        ("{}", "PedMasks/FudanPed00001_mask.png", "PNGImages/FudanPed00001.png"),
        ("{}", "masks/a.tif", "images/a.png"),  # StarDist
        ("{}/masks:{}/images", "masks/a.tif", "images/a.png"),
        ("{}/masks:{}/photos", "masks/sub/a.png", "photos/sub/a.png"),
        ("{}", "a_masks.png", "a.png"),  # Cellpose
        ("{}", "000_masks.tif", "000_img.png"),
        ("{}", "a_cp_masks.tif", "a.png"),
        ("{}", "plant001_label.png", "plant001_rgb.png"),  # CVPPP
    ],
)
def test_layouts(write, spec, mask, image):
    write(image, SIZE)
    folder = write(mask, labels())
    record, info = read_one("label-images:" + spec.replace("{}", str(folder)))
    assert record.file_name == f"{folder}/{image}" and info.class_names == ("object",)
    assert same(masks(record), flat()) and record.in_front is None
    assert [instance.bbox for instance in record.instances] == [[2, 1, 4, 3], [4, 2, 5, 6]]


@pytest.mark.parametrize("values, dtype", [((300, 65535), np.uint16), ((7, 70000), np.int32), ((255, 256), np.uint16)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_above_a_byte(write, values, dtype, suffix):
    if dtype == np.int32 and suffix == "png":
        return  # PNG has 16 bits
    write("images/a.png", SIZE)
    record, _ = read_one(f"label-images:{write(f'masks/a.{suffix}', labels(values, dtype))}")
    assert same(masks(record), flat())
    assert record.instances[1].annotation_id.endswith(f"a.{suffix} value {values[1]}")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
def test_a_stack_keeps_overlap(write, tmp_path, compression):
    write("images/a.png", SIZE)
    (tmp_path / "masks").mkdir()
    first, *others = (Image.fromarray(box_mask(SIZE, *box).astype(np.uint8) * 255) for box in BOXES)
    first.save(tmp_path / "masks/a.tif", save_all=True, append_images=others, compression=compression)
    record, _ = read_one(f"label-images:{tmp_path}")
    assert same(masks(record), [box_mask(SIZE, *box) for box in BOXES])


@pytest.mark.parametrize("place", ["masks/a/{}.png", "masks/a_{}.png", "masks/a_mask_{}.png"])
def test_one_file_for_each_object_keeps_overlap(write, place):
    write("images/a.png", SIZE)
    for number, box in enumerate(BOXES):
        folder = write(place.format(number), box_mask(SIZE, *box).astype(np.uint8) * 255)
    record, _ = read_one(f"label-images:{folder}")
    assert same(masks(record), [box_mask(SIZE, *box) for box in BOXES])


def test_a_folder_for_each_image(write):
    for sample in ("s1", "s2"):
        write(f"train/{sample}/images/{sample}.png", SIZE)
        for number, box in enumerate(BOXES):
            folder = write(f"train/{sample}/masks/{number}.png", box_mask(SIZE, *box).astype(np.uint8) * 255)
    (folder / "train/empty/images").mkdir(parents=True)
    (folder / "train/empty/masks").mkdir()
    records, _ = load_dataset(f"label-images:{folder}/train")
    assert [record.file_name[-9:] for record in records] == ["es/s1.png", "es/s2.png"]
    assert all(same(masks(record), [box_mask(SIZE, *box) for box in BOXES]) for record in records)


def test_palettes_are_indices_and_grey_in_colour_is_grey(write, tmp_path):
    write("images/a.png", SIZE)
    image = Image.fromarray(labels()).convert("P")
    image.putdata(labels().ravel().tolist())
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 10, 200])
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/a.png")
    assert same(masks(read_one(f"label-images:{tmp_path}")[0]), flat())
    write("masks/a.png", np.repeat(labels()[..., None], 3, axis=2))
    assert same(masks(read_one(f"label-images:{tmp_path}")[0]), flat())


@pytest.mark.parametrize("count", [3, 4])
def test_stacks_that_tifffile_writes_as_colours_are_pages(write, tmp_path, count):
    write("images/a.png", SIZE)
    (tmp_path / "masks").mkdir()
    pages = np.stack([box_mask(SIZE, n, 2, n + 4, 8) for n in range(count)]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "masks/a.tif", pages, photometric="rgb", planarconfig="separate")
    assert same(masks(read_one(f"label-images:{tmp_path}")[0]), list(pages.astype(bool)))
    deep = pages.astype(np.uint16) * 300
    tifffile.imwrite(tmp_path / "masks/a.tif", deep, photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match=rf"it is a TIFF of {count} colour planes of 16 bits; write the stack"):
        load_dataset(f"label-images:{tmp_path}")


def test_what_does_not_fit_is_counted(write, caplog):
    for name in ("images/a.png", "images/b.png"):
        write(name, SIZE)
    write("masks/c.png", labels())
    read_one(f"label-images:{write('masks/a.png', labels())}")
    assert "1 label images without an image, dropped (c.png)" in caplog.text
    assert "1 images without a label image, dropped (images/b.png)" in caplog.text


def test_binary_masks_of_several_pieces_are_noted(write, caplog):
    write("images/a.png", SIZE)
    pieces = (box_mask(SIZE, 0, 0, 2, 2) | box_mask(SIZE, 5, 5, 8, 8)).astype(np.uint8)
    assert len(read_one(f"label-images:{write('masks/a.png', pieces)}")[0].instances) == 1
    assert "1 label images of one value in several pieces" in caplog.text


def test_an_image_without_objects_is_kept(write):
    write("images/a.png", SIZE)
    assert read_one(f"label-images:{write('masks/a.png', labels((0, 0)))}")[0].instances == []


@pytest.mark.parametrize(
    "name, pixels, message",
    [
        (
            "a.png",
            np.zeros((5, 6), dtype=np.uint8),
            r"label image 'masks/a.png': it is 6 x 5 pixels, its image 12 x 10",
        ),
        ("a.jpg", labels(), r"label image must be of a lossless format such as PNG or TIFF, it is JPEG"),
        ("a.tif", labels((0.5, 2), np.float32), r"its values are not whole numbers"),
        ("a.tif", labels((-1, 2), np.int32), r"its values must not be negative, the least is -1"),
        ("a.png", np.stack([labels((1, 2)), labels((1, 3)), labels()], axis=2), r"it has 3 channels that differ"),
        ("a.png", "no image", r"it cannot be read: cannot identify image file"),
    ],
)
def test_malformed_label_images(write, name, pixels, message):
    write("images/a.png", SIZE)
    with pytest.raises(ValueError, match=message.replace("'masks/", "'masks/")):
        load_dataset(f"label-images:{write(f'masks/{name}', pixels)}")


def test_nothing_fits(write):
    write("a.png", SIZE)
    with pytest.raises(ValueError, match=r"no label image has an image of its name \(.* has a.png, b.png\)"):
        load_dataset(f"label-images:{write('b.png', SIZE)}")
