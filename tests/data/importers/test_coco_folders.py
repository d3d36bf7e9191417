"""Folders with a COCO json and its images, as tools export them."""

import pytest
from coco_samples import annotation

from bcnet.data import load_dataset


def content(*names):
    images = [{"id": i, "file_name": name, "height": 10, "width": 12} for i, name in enumerate(names, start=1)]
    return {
        "images": images,
        "categories": [{"id": 0, "name": "fruit", "supercategory": "none"}, {"id": 3, "name": "pear"}],
        "annotations": [annotation(1, 1, [1, 2, 4, 3])],
    }


@pytest.mark.parametrize(
    "spec, json, image",
    [
        ("{}/train", "train/_annotations.coco.json", "train/a.png"),  # Roboflow
        ("{}", "annotations/instances_default.json", "images/a.png"),  # CVAT
        ("{}", "annotations/instances_default.json", "images/default/a.png"),
        ("{}", "annotations.json", "photos/a.png"),
        ("{}/sub/annotations.json", "sub/annotations.json", "sub/a.png"),
        ("{}/x.json:{}/photos", "x.json", "photos/a.png"),
    ],
)
def test_json_and_images_are_found(write, spec, json, image):
    write(image, (10, 12))
    folder = write(json, content("a.png"))
    records, info = load_dataset("coco:" + spec.replace("{}", str(folder)))
    assert [record.file_name for record in records] == [f"{folder}/{image}"]
    assert info.annotation_file == f"{folder}/{json}" and len(records[0].instances) == 1
    assert load_dataset("coco_used:" + spec.replace("{}", str(folder)))[1].class_names == ("pear",)


def test_the_place_with_most_of_the_images_counts(write):
    for name in ("train/a.png", "val/a.png", "val/b.png"):
        write(name, (10, 12))
    records, _ = load_dataset(f"coco:{write('annotations/val.json', content('a.png', 'b.png'))}")
    assert records[0].file_name.endswith("val/a.png")


@pytest.mark.parametrize("name", ["photos\\a.png", "..\\..\\label-studio\\media\\a.png", "C:\\x\\a.png", "/x/a.png"])
@pytest.mark.parametrize("spec", ["coco:{}", "coco:{}/x.json:{}/photos", "coco_used:{}/x.json:{}/photos"])
def test_paths_of_another_machine(write, name, spec):
    write("photos/a.png", (10, 12))
    folder = write("x.json", content(name))
    assert load_dataset(spec.replace("{}", str(folder)))[0][0].file_name == f"{folder}/photos/a.png"


def test_a_name_that_several_images_have_finds_none(write):
    write("photos/a.png", (10, 12))
    folder = write("x.json", content("C:\\x\\a.png", "C:\\y\\a.png"))
    with pytest.raises(ValueError, match=r"none of its 2 images, such as 'C:.*a.png', is in one of the folders"):
        load_dataset(f"coco:{folder}")


def test_other_jsons_are_passed_over_and_several_are_an_error(write, tmp_path):
    write("a.png", (10, 12))
    write("a.json", {"shapes": []})
    write("bad.json", "{")
    write("train.json", content("a.png"))
    assert len(load_dataset(f"coco:{tmp_path}")[0]) == 1
    write("val.json", content("a.png"))
    with pytest.raises(ValueError, match=r"has several COCO files, name one of them: .*train.json, .*val.json"):
        load_dataset(f"coco:{tmp_path}")


def test_what_is_not_there(write, tmp_path):
    with pytest.raises(ValueError, match=r"has no COCO json, nor has its folder annotations$"):
        load_dataset(f"coco:{tmp_path}")
    write("train/_annotations.coco.json", content("a.png"))
    with pytest.raises(ValueError, match=r"name one of these, or its folder: .*train/_annotations.coco.json"):
        load_dataset(f"coco:{tmp_path}")
    with pytest.raises(ValueError, match=r"none of its 1 images, such as 'a.png', is in one of the folders"):
        load_dataset(f"coco:{tmp_path}/train")
    with pytest.raises(FileNotFoundError, match=r"annotation file .* not found"):
        load_dataset(f"coco:{tmp_path}/nowhere")


def test_occluded_of_cvat_s_export(write):
    write("images/a.png", (10, 12))
    objects = [
        annotation(i, 1, [1, 2, 4, 3], attributes=a) for i, a in enumerate([{"occluded": True}, {"rotation": 0}], 1)
    ]
    (record,), _ = load_dataset(f"coco:{write('annotations/x.json', content('a.png') | {'annotations': objects})}")
    assert [instance.occluded for instance in record.instances] == [True, None]
