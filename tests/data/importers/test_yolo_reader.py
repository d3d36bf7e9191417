"""Reader of YOLO's data.yaml and label files."""

import pytest
from importer_samples import box_mask, masks, read_one, same
from PIL import Image

from bcnet.data import dataset_files, load_dataset

NAMES = "names: [cup, bowl]\n"


@pytest.fixture
def yolo(write):
    """A data set of one image of 20 x 40 pixels; called with the lines of its labels, gives the yaml's path."""

    def make(*lines, yaml=f"path: .\ntrain: images/train\n{NAMES}", image="images/train/a.png", **options):
        write(image, (20, 40), **options)
        folder = write("labels/train/a.txt", "\n".join(lines) + "\n")
        write("data.yaml", yaml)
        return str(folder / "data.yaml")

    return make


def test_segments_are_fractions_of_the_sides(yolo):
    record, info = read_one(f"yolo:{yolo('1 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5')}")
    assert record.instances[0].segmentation == [[4, 2, 12, 2, 12, 10, 4, 10]]
    assert same(masks(record), [box_mask((20, 40), 4, 2, 12, 10)])
    assert (info.class_names, info.category_ids, record.instances[0].category) == (("cup", "bowl"), (0, 1), 1)
    assert record.instances[0].annotation_id == "labels/train/a.txt line 1"


def test_boxes_have_no_mask(yolo):
    record, _ = read_one(f"yolo:{yolo('0 0.5 0.5 0.25 0.5')}")
    assert record.instances[0].segmentation is None and record.instances[0].bbox == [15, 5, 10, 10]


def test_names_by_number_may_have_gaps(yolo):
    yaml = "train: images/train\nnames:\n  7: bowl\n  2: cup\n"
    record, info = read_one(f"yolo:{yolo('7 0.5 0.5 0.25 0.5', yaml=yaml)}:train")
    assert (info.class_names, info.category_ids, record.instances[0].category) == (("cup", "bowl"), (2, 7), 1)


def test_the_split_is_named_where_there_are_several(yolo, write):
    path = yolo("0 0.5 0.5 0.25 0.5", yaml=f"train: images/train\nval: images/val\n{NAMES}")
    write("images/val/b.png", (8, 8))
    assert dataset_files(f"yolo:{path}:val").paths == (path, "val")
    with pytest.raises(ValueError, match="has the splits train, val: name one"):
        load_dataset(f"yolo:{path}")
    with pytest.raises(ValueError, match="has the splits train, val: name one"):
        load_dataset(f"yolo:{path}:test")
    record, _ = read_one(f"yolo:{path}:val")
    assert record.instances == [] and record.file_name.endswith("images/val/b.png")  # no labels: no objects


def test_labels_without_an_image_are_counted(yolo, write, caplog):
    path = yolo("0 0.5 0.5 0.25 0.5")
    write("labels/train/gone.txt", "0 0.5 0.5 0.25 0.5\n")
    assert len(load_dataset(f"yolo:{path}")[0]) == 1
    assert "1 label files without an image, dropped (labels/train/gone.txt)" in caplog.text


@pytest.mark.parametrize(
    "train", ["../images/train", "[images/train]", "images.txt", "./images/train/", "images/train/a.png"]
)
def test_ways_to_say_where_the_images_are(yolo, write, train):
    write("images.txt", "./images/train/a.png\n")
    record, _ = read_one(f"yolo:{yolo('0 0.5 0.5 0.25 0.5', yaml=f'train: {train}{chr(10)}{NAMES}')}")
    assert record.file_name.endswith("images/train/a.png") and len(record.instances) == 1


def test_the_folder_of_the_yaml_will_do(yolo, tmp_path):
    yolo("0 0.5 0.5 0.25 0.5")
    assert len(read_one(f"yolo:{tmp_path}")[0].instances) == 1


def test_sides_are_those_after_exif_orientation(yolo):
    # As in supervision's issue 2577: labels refer to the image as it is shown.
    exif = Image.Exif()
    exif[0x0112] = 6
    path = yolo("0 0.1 0.1 0.9 0.1 0.9 0.5 0.1 0.5", image="images/train/a.jpg", exif=exif.tobytes())
    record, _ = read_one(f"yolo:{path}")
    assert (record.height, record.width) == (40, 20)
    assert record.instances[0].segmentation == [[2, 4, 18, 4, 18, 20, 2, 20]]


def test_repeated_lines_are_counted(yolo, caplog):
    line = "0 0.5 0.5 0.25 0.5"
    assert len(read_one(f"yolo:{yolo(line, '', line)}")[0].instances) == 2
    assert "1 lines that an earlier line of the file repeats (labels/train/a.txt line 3)" in caplog.text


@pytest.mark.parametrize(
    "line, message",
    [
        ("0 0.1 0.1 0.3 0.1", None),  # a box
        (
            "0 0.1 0.1 0.3",
            r"a.txt line 1': it must be a class and a polygon of 3 points or more, or a class and a box, got 4",
        ),
        ("0 0.1 0.1 0.3 0.1 0.3 0.5 0.1", r"got 8 numbers"),
        ("0 4 2 12 2 12 10", r"its coordinates must be fractions of the image's sides, 0..1, got 4 \(pixels\?\)"),
        ("cup 0.1 0.1 0.3 0.1", r"it must be numbers alone, got 'cup 0.1"),
        ("0 0.1 nan 0.3 0.1", r"got nan"),
        ("2 0.1 0.1 0.3 0.1", r"category_id 2 is not in the file's categories"),
        ("0.5 0.1 0.1 0.3 0.1", r"its class must be a whole number, got 0.5"),
        ("0 0.1 0.1 -0.3 0.1", r"bbox has a negative size"),
    ],
)
def test_malformed_lines(yolo, line, message):
    path = yolo(line)
    if message is None:
        load_dataset(f"yolo:{path}")
        return
    with pytest.raises(ValueError, match=message):
        load_dataset(f"yolo:{path}")


@pytest.mark.parametrize(
    "yaml, message",
    [
        ("train: images/train\n", "names must be a list of class names"),
        ("train: images/train\nnames: 3\n", "names must be a list of class names, or names by number, got 3"),
        ("- a\n", "it must have names and the images of the splits"),
        ("names: [a\n", "is not a yaml file"),
        (NAMES, "names no images: it must have one of train, val, test"),
        (f"train: images/train\nnc: 3\n{NAMES}", "nc is 3, but names has 2 classes"),
        (f"train: 3\n{NAMES}", "train must be a path or a list of paths, got 3"),
        (f"train: labels\n{NAMES}", "train has no images: 'labels'"),
    ],
)
def test_malformed_yaml(yolo, yaml, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"yolo:{yolo(yaml=yaml)}")


def test_images_that_do_not_exist(yolo):
    with pytest.raises(FileNotFoundError, match="the images of train, 'images/gone', were not found"):
        load_dataset(f"yolo:{yolo(yaml=f'train: images/gone{chr(10)}{NAMES}')}")
