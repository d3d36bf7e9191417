"""Plain annotations are read as the rules read them, and what the rules would note or reject is not plain."""

import itertools
import math

import numpy as np
import pytest

from bcnet.data import reader
from bcnet.data.plain_annotations import PlainInstances, plain_instances
from bcnet.data.reader import CocoReader
from bcnet.data.records import ImageRecord


def polygon(x, y, width, height):
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def annotation(number=1, x=10.0, y=20.0, width=30.0, height=15.5, **values):
    plain = {
        "id": number,
        "image_id": 1,
        "category_id": 3,
        "iscrowd": 0,
        "area": width * height,
        "bbox": [x, y, width, height],
        "segmentation": [polygon(x, y, width, height)],
    }
    return {key: value for key, value in {**plain, **values}.items() if value is not ...}


def read(annotations, monkeypatch=None):
    """The records and findings; with a monkeypatch by the rules alone."""
    if monkeypatch is not None:
        nothing = lambda annotations, *_: PlainInstances([None] * len(annotations), 0.0, math.inf)  # noqa: E731
        monkeypatch.setattr(reader, "plain_instances", nothing)
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 120}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": annotations,
    }
    found = CocoReader(content, "a.json", "images")
    images = [(image.record, image.annotations) for image in found]
    f = found.findings
    return images, f.faults, f.dropped, f.noted, f.hints, found.counts, found.used_classes


BOX = [10.0, 20.0, 30.0, 15.5]
NEAR = polygon(10.9, 20.9, 29, 14)
ODD_VALUES = {
    "id": [2.0, "1", True, 2**64, None, [1]],
    "category_id": [3.0, 4, "3", True, None, [3], ...],
    "iscrowd": [1, "0", "1", True, False, None, 2, 0.0, [], ...],
    "area": [0, -1, None, "12", math.nan, math.inf, True, 10**400, ...],
    "bbox": [
        None,
        [],
        BOX[:3],
        (10, 20, 30, 15.5),
        [10, 20, 30, 0],
        [10, 20, -30, 15],
        [10, 20, 30, "15"],
        [10, 20, 30, True],
        [10, 20, 30, math.nan],
        [10, 20, 10**400, 15],
        [10, 20, 35, 15],
        [10, 20, 300, 15],
        [60, 60, 30, 15],
        [0.1, 0.2, 0.5, 0.1],
        ...,
    ],
    "segmentation": [
        None,
        [],
        {},
        [[]],
        "",
        polygon(*BOX),
        [polygon(*BOX)[:-1]],
        [polygon(*BOX)[:4]],
        [polygon(*BOX), [1, 2, 3]],
        [polygon(*BOX), polygon(*BOX)[:7]],
        [[str(value) for value in polygon(*BOX)]],
        [[*polygon(*BOX), None, 1]],
        [[*polygon(*BOX), [1, 2]]],
        [[*polygon(*BOX), math.nan, 21]],
        [[*polygon(*BOX), math.inf, 21]],
        [[*polygon(*BOX), 10**400, 21]],
        [polygon(*BOX), [True] * 8],
        [[True, 30, *polygon(*BOX)]],
        [NEAR],
        [polygon(10, 20, 15, 7), polygon(25, 27, 15, 8)],
        [polygon(10, 20, 30, 0.2), polygon(10, 35.3, 30, 0.2)],
        [polygon(20, 10, 15, 30)],
        [polygon(10, 20, 130, 15.5)],
        {"size": [100, 120], "counts": [1000, 20, 10980]},
    ],
    "ignore": [1, 0, "x"],
    "depth": [1, "x"],
    "in_front": [[1], 1, []],
    "unordered_with": [[5], "x"],
    "hidden_fraction": [0.5, 2],
    "attributes": [{"occluded": 1}, {"occluded": "x"}, {}],
    "track_id": [4, 1.5],
    "occlusion": ["slight_occlusion", 3],
    "amodal_bbox": [[10, 20, 40, 20], [1]],
    "amodal_segmentation": [[polygon(10, 20, 40, 20)], "x"],
    "bg_object_segmentation": [[polygon(10, 20, 4, 2)], "x"],
    "score": [0.5],
}
CASES = [(key, value) for key, values in ODD_VALUES.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key}-{str(value)[:40]}" for key, value in CASES])
def test_every_annotation_is_read_as_by_the_rules_alone(monkeypatch, key, value):
    annotations = [annotation(5), annotation(6, **{key: value}), annotation(7, x=50, category_id=7)]
    both = read(annotations)
    assert repr(both) == repr(read(annotations, monkeypatch))  # 2 is not 2.0
    assert len(both[0][0][0].instances) >= 2


def test_random_boxes_and_polygons_are_read_as_by_the_rules_alone(monkeypatch):
    rng = np.random.default_rng(3)
    annotations = []
    for number in range(400):
        x, y, width, height = (float(v) for v in rng.uniform([-5, -5, 0, 0], [120, 100, 40, 30]).round(2))
        moved = polygon(x + float(rng.normal(0, 0.8)), y, width, height)
        annotations.append(annotation(number, x, y, width, height, segmentation=[moved]))
    both = read(annotations)
    assert both == read(annotations, monkeypatch)
    records = [ImageRecord("a.jpg", 1, 100, 120)] * len(annotations)
    plain = [instance is not None for instance in plain_instances(annotations, records, {3: 0}).instances]
    assert 40 < sum(plain) < 360
    assert both[1]  # others are faults


@pytest.mark.parametrize("factor", [math.inf, -math.inf, 1e308, 1e200])
def test_infinite_and_huge_coordinates_are_faults_without_a_warning(monkeypatch, factor):
    huge = [factor * value for value in polygon(*BOX)]
    rows = [annotation(5, bbox=[factor * value for value in BOX], segmentation=[huge, huge]), annotation(6)]
    both = read(rows)
    assert repr(both) == repr(read(rows, monkeypatch)) and len(both[1]) == 1


@pytest.mark.parametrize("unit", [100, 120])
def test_coordinates_in_fractions_are_still_recognised(monkeypatch, unit):
    annotations = [annotation(k, 0.1, 0.2, 0.3 + k / 100, 0.4) for k in range(5)]
    assert read(annotations) == read(annotations, monkeypatch)
    assert "fractions of the image size" in read(annotations)[1][0].message


def test_what_is_plain_has_its_values():
    rows = [annotation(4), annotation(8, 50, 40, 20, 30, category_id=7), annotation(9, depth=1), 3]
    records = [ImageRecord("a.jpg", 1, 100, 120)] * 3 + [ImageRecord("b.jpg", 2, 10, 10)]
    instances, largest, smallest_side = plain_instances(rows, records, {3: 0, 7: 1})
    assert [instance and (instance.annotation_id, instance.category, instance.area) for instance in instances] == [
        (4, 0, 465.0),
        (8, 1, 600.0),
        None,
        None,
    ]
    first = instances[0]
    assert first is not None and first.bbox is rows[0]["bbox"] and first.segmentation is rows[0]["segmentation"]
    assert (largest, smallest_side) == (70.0, 100.0)


def test_images_are_read_in_the_order_of_the_file_across_batches():
    size = reader._BATCH + 3
    content = {
        "images": [{"id": size - k, "file_name": f"{k}.jpg", "height": 100, "width": 120} for k in range(size)],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [annotation(k, image_id=k // 2 + 1) for k in range(2 * size)],
    }
    images = list(CocoReader(content, "a.json", "images"))
    assert [image.record.image_id for image in images] == list(range(size, 0, -1))
    assert [image.position for image in images] == list(range(size))
    expected = list(itertools.chain.from_iterable((2 * k, 2 * k + 1) for k in reversed(range(size))))
    assert [place for image in images for place in image.annotations] == expected
