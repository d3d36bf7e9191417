"""Readers of Pascal VOC's segmentations and of LVIS."""

import numpy as np
import pytest
from coco_samples import annotation
from importer_samples import box_mask, masks, read_one, same

from bcnet.data import load_dataset

SIZE = (10, 12)
XML = """<annotation>
<object><name>cat</name><occluded>1</occluded><difficult>0</difficult></object>
<object><name>dog</name><occluded>0</occluded><difficult>1</difficult></object>
</annotation>"""


@pytest.fixture
def voc(write):
    """VOC2012 with one image of two objects; gives the folder."""
    objects, classes = np.zeros(SIZE, dtype=np.uint8), np.zeros(SIZE, dtype=np.uint8)
    objects[1:4, 2:6], classes[1:4, 2:6] = 1, 8  # cat
    objects[5:9, 3:9], classes[5:9, 3:9] = 2, 12  # dog
    objects[4], classes[4] = 255, 255
    write("VOC2012/JPEGImages/a.jpg", SIZE)
    write("VOC2012/SegmentationObject/a.png", objects)
    write("VOC2012/SegmentationClass/a.png", classes)
    return write("VOC2012/ImageSets/Segmentation/val.txt", "a\n") / "VOC2012"


def test_objects_classes_and_void(voc):
    record, info = read_one(f"voc:{voc}:val")
    assert same(masks(record), [box_mask(SIZE, 2, 1, 6, 4), box_mask(SIZE, 3, 5, 9, 9)])
    assert [info.class_names[instance.category] for instance in record.instances] == ["cat", "dog"]
    assert len(info.class_names) == 20 and info.category_ids[0] == 1
    assert [instance.occluded for instance in record.instances] == [None, None]


def test_flags_of_the_xml(voc, write):
    write("VOC2012/Annotations/a.xml", XML)
    record, _ = read_one(f"voc:{voc}")
    assert [instance.occluded for instance in record.instances] == [True, False]
    assert [instance.iscrowd for instance in record.instances] == [False, True]  # difficult: to be ignored


CAT_AND_DOG = [f"{number}\n" for number in range(1, 8)] + ["cat\n", "1\n", "2\n", "3\n", "dog\n"]


@pytest.mark.parametrize(
    "file, text",
    [
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
            + "".join(f"{c}:0,0,{n}::\n" for n, c in enumerate([*"1234567", "cat", *"abc", "dog"], start=1)),
        ),
        ("class_names.txt", "__ignore__\n_background_\n" + "".join(CAT_AND_DOG)),
        ("labels.txt", "".join(CAT_AND_DOG)),
    ],
)
def test_own_classes(voc, write, file, text, caplog):
    write(f"VOC2012/{file}", text)
    record, info = read_one(f"voc:{voc}")
    assert [info.class_names[instance.category] for instance in record.instances] == ["cat", "dog"]
    assert len(info.class_names) == 12 and "VOC's own" not in caplog.text


def test_colours_of_cvat(voc, write):
    classes, objects = np.zeros((*SIZE, 3), dtype=np.uint8), np.zeros((*SIZE, 3), dtype=np.uint8)
    objects[1:4, 2:6], classes[1:4, 2:6] = (128, 0, 0), (10, 20, 30)
    objects[5:9, 3:9], classes[5:9, 3:9] = (0, 128, 0), (7, 7, 7)
    objects[4], classes[4] = (224, 224, 192), (224, 224, 192)  # void
    write("VOC2012/SegmentationObject/a.png", objects)
    write("VOC2012/SegmentationClass/a.png", classes)
    write("VOC2012/labelmap.txt", "# label:color_rgb\nbackground:0,0,0::\ndog:7,7,7::\ncat:10,20,30::\n")
    record, info = read_one(f"voc:{voc}")
    assert same(masks(record), [box_mask(SIZE, 2, 1, 6, 4), box_mask(SIZE, 3, 5, 9, 9)])
    assert [info.class_names[instance.category] for instance in record.instances] == ["cat", "dog"]
    write("VOC2012/labelmap.txt", "# label:color_rgb\nbackground:0,0,0::\ndog:7,7,7::\n")
    with pytest.raises(ValueError, match=r"its colour \[10, 20, 30\] is that of no label"):
        load_dataset(f"voc:{voc}")


def test_classes_that_nothing_names(voc, write, caplog, tmp_path):
    voc.rename(tmp_path / "mine")
    load_dataset(f"voc:{tmp_path}/mine")
    assert "the 20 classes are taken to be VOC's own" in caplog.text
    write("mine/class_names.txt", "_background_\ncat\n")
    with pytest.raises(ValueError, match=r"'a object 1': its class is 8 in SegmentationClass, the 1 classes are"):
        load_dataset(f"voc:{tmp_path}/mine")


def test_malformed_voc(voc, write, tmp_path):
    with pytest.raises(ValueError, match=r"has no split 'train'; those of .*Segmentation are val"):
        load_dataset(f"voc:{voc}:train")
    with pytest.raises(ValueError, match="there is no folder SegmentationObject"):
        load_dataset(f"voc:{tmp_path}")
    write("VOC2012/SegmentationClass/a.png", np.zeros(SIZE, dtype=np.uint8))
    with pytest.raises(ValueError, match="'a object 1': most of its pixels are of class 0 in SegmentationClass"):
        load_dataset(f"voc:{voc}")
    write("VOC2012/SegmentationClass/a.png", np.zeros((3, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"image 'a': .*SegmentationClass/a.png is 4 x 3 pixels, its image 12 x 10"):
        load_dataset(f"voc:{voc}")
    write("VOC2012/ImageSets/Segmentation/val.txt", "b\n")
    with pytest.raises(ValueError, match=r"image 'b': cannot read the image '.*b.jpg'"):
        load_dataset(f"voc:{voc}:val")


@pytest.mark.parametrize("image, name", [("train2017/a.jpg", "train2017/a.jpg"), ("a.jpg", "a.jpg")])
def test_lvis_names_images_by_their_url(write, image, name):
    write(f"coco/{image}", SIZE)
    url = "http://images.cocodataset.org/train2017/a.jpg"
    content = {
        "images": [{"id": 5, "coco_url": url, "height": 10, "width": 12, "neg_category_ids": [2]}],
        "categories": [{"id": 1, "name": "aerosol_can", "synset": "aerosol.n.02"}, {"id": 2, "name": "apple"}],
        "annotations": [annotation(1, 5, [1, 2, 4, 3], category_id=2, iscrowd=None)],
    }
    folder = write("lvis.json", content)
    record, info = read_one(f"lvis:{folder}/lvis.json:{folder}/coco")
    assert record.file_name == f"{folder}/coco/{name}" and info.class_names == ("aerosol_can", "apple")
    assert record.instances[0].category == 1
