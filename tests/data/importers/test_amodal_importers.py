"""Readers of BOP and ADE20K: visible and amodal masks, and the order that hidden pixels tell."""

import numpy as np
import pytest
from importer_samples import box_mask, masks, read_one, same
from pycocotools import mask as coco_mask

from bcnet.data import load_dataset
from bcnet.data.source_masks import amodal_rle

SIZE = (20, 30)
BACK, FRONT = box_mask(SIZE, 2, 2, 14, 12), box_mask(SIZE, 8, 4, 24, 16)


def amodal(record):
    return [coco_mask.decode(amodal_rle(record, instance)).astype(bool) for instance in record.instances]


@pytest.fixture
def bop(write):
    """A split with one scene of one image: object 9 behind object 4; gives the folder."""
    for number, (whole, visible) in enumerate([(BACK, BACK & ~FRONT), (FRONT, FRONT)]):
        write(f"train/000003/mask/000012_{number:06d}.png", whole.astype(np.uint8) * 255)
        write(f"train/000003/mask_visib/000012_{number:06d}.png", visible.astype(np.uint8) * 255)
    write("train/000003/rgb/000012.png", SIZE)
    pose = {"cam_R_m2c": [1, 0, 0, 0, 1, 0, 0, 0, 1], "cam_t_m2c": [0, 0, 800]}
    write("train/000003/scene_gt.json", {"12": [{"obj_id": 9, **pose}, {"obj_id": 4, **pose}]})
    info = [{"visib_fract": 0.75, "px_count_all": 120}, {"visib_fract": 1.0}]
    return write("train/000003/scene_gt_info.json", {"12": info}) / "train"


def test_bop(bop):
    record, info = read_one(f"bop:{bop}")
    assert same(masks(record), [BACK & ~FRONT, FRONT]) and same(amodal(record), [BACK, FRONT])
    assert record.in_front == [(0, 1)] and info.annotated_occlusions
    assert [instance.hidden_fraction for instance in record.instances] == [0.25, 0]
    assert (info.class_names, info.category_ids) == (("obj_000004", "obj_000009"), (4, 9))
    assert [instance.category for instance in record.instances] == [1, 0]
    assert record.file_name.endswith("000003/rgb/000012.png")
    scene, _ = read_one(f"bop:{bop}/000003")
    assert same(masks(scene), masks(record)) and scene.instances[0].annotation_id == "000012_000000"


def test_bop_without_info_and_hidden_altogether(bop, write, tmp_path, caplog):
    (bop / "000003/scene_gt_info.json").unlink()
    write("train/000003/mask_visib/000012_000000.png", np.zeros(SIZE, dtype=np.uint8))
    record, _ = read_one(f"bop:{bop}")
    assert record.instances[0].segmentation is None and record.instances[0].hidden_fraction is None
    assert record.in_front == [(0, 1)]
    assert "1 objects without a visible pixel, fully hidden" in caplog.text


def test_malformed_bop(bop, write, tmp_path):
    with pytest.raises(ValueError, match=r"nor has it scenes: there is no scene_gt.json"):
        load_dataset(f"bop:{tmp_path}")
    (bop / "000003/mask/000012_000001.png").unlink()
    with pytest.raises(ValueError, match=r"'000003/000012_000001': .*mask/000012_000001.png: there is no such file"):
        load_dataset(f"bop:{bop}")
    write("train/000003/scene_gt.json", {"12": [{"obj_id": "four"}]})
    with pytest.raises(ValueError, match="its obj_id must be a whole number, got 'four'"):
        load_dataset(f"bop:{bop}")
    write("train/000003/scene_gt.json", {"twelve": []})
    with pytest.raises(ValueError, match="its keys are the numbers of images, got 'twelve'"):
        load_dataset(f"bop:{bop}")


def entry(number, name, name_ndx, rank, occluded="no", level=0, instance_mask=True):
    return {
        "id": number,
        "name": name,
        "name_ndx": name_ndx,
        "depth_ordering_rank": rank,
        "occluded": occluded,
        "parts": {"hasparts": [], "ispartof": [], "part_level": level},
        "instance_mask": f"ADE_1/instance_{number:03d}_ADE_1.png" if instance_mask else None,
        "polygon": {"x": [2, 14, 14, 2], "y": [2, 2, 12, 12]},
    }


@pytest.fixture
def ade(write):
    """A folder with one image; called with the objects."""

    def make(*objects):
        write("street/ADE_1.jpg", SIZE)
        for number, (whole, visible) in enumerate([(BACK, BACK & ~FRONT), (FRONT, FRONT)]):
            mask = np.where(visible, 255, np.where(whole, 128, 0)).astype(np.uint8)
            write(f"street/ADE_1/instance_{number:03d}_ADE_1.png", mask)
        content = {"annotation": {"filename": "ADE_1.jpg", "imsize": [*SIZE, 3], "object": list(objects)}}
        return write("street/ADE_1.json", content)

    return make


def test_ade20k_takes_the_order_from_the_hidden_pixels(ade):
    # The rank says the opposite: it numbers the objects.
    folder = ade(entry(0, "car, auto", 401, 1, "yes"), entry(1, "tree", 2855, 2, []))
    record, info = read_one(f"ade20k:{folder}")
    assert same(masks(record), [BACK & ~FRONT, FRONT]) and same(amodal(record), [BACK, FRONT])
    assert record.in_front == [(0, 1)] and [i.occluded for i in record.instances] == [True, None]
    assert (info.class_names, info.category_ids) == (("car, auto", "tree"), (401, 2855))


def test_ade20k_polygons_and_parts(ade, caplog):
    record, _ = read_one(
        f"ade20k:{ade(entry(0, 'car', 401, 1, instance_mask=False), entry(1, 'wheel', 9, 2, level=1))}"
    )
    assert record.instances[0].segmentation == [[2, 2, 14, 2, 14, 12, 2, 12]]
    assert record.in_front is None and record.instances[0].amodal is None
    assert "1 parts of other objects, dropped (street/ADE_1.json object 1)" in caplog.text


def test_ade20k_is_in_latin_1(ade, tmp_path):
    folder = ade(entry(0, "caf\u00e9", 5, 1))
    path = tmp_path / "street/ADE_1.json"
    path.write_bytes(path.read_text().replace("\\u00e9", "\u00e9").encode("latin-1"))
    assert read_one(f"ade20k:{folder}")[1].class_names == ("caf\u00e9",)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": None}, r"'street/ADE_1.json object 0': it has no name"),
        ({"name_ndx": "car"}, r"its name_ndx must be a whole number"),
        ({"instance_mask": None, "polygon": {"x": [1], "y": []}}, r"polygon must have lists x and y of one length"),
        ({"instance_mask": None, "polygon": None}, r"polygon must have lists x and y of one length, got None"),
        ({"instance_mask": None, "polygon": {"x": [1, 2], "y": [1, 2]}}, r"every polygon has fewer than 3 points"),
    ],
)
def test_malformed_ade20k(ade, changes, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(f"ade20k:{ade(entry(0, 'car', 401, 1) | changes)}")


def test_malformed_ade20k_files(write, tmp_path):
    with pytest.raises(ValueError, match="has no json files of ADE20K"):
        load_dataset(f"ade20k:{tmp_path}")
    write("a.json", {"shapes": []})
    with pytest.raises(ValueError, match=r"a.json: it is not a json of ADE20K: it must be an object"):
        load_dataset(f"ade20k:{tmp_path}")
