"""Reader of Label Studio's json, and the run-length code of its brush."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from importer_samples import box_mask, masks, read_one, same

from bcnet.data import load_dataset
from bcnet.data.findings import AnnotationError
from bcnet.data.importers.label_studio_rle import decode_brush, encode_brush

SIZE = (10, 20)

# 1 x 3 pixels, of which the second is painted, packed by hand: 12 values of 8 bits, widths 3, 4, 8 and 16; a run of
# four zeros, a run of four 255, and four zeros one by one.
BY_HAND = (
    f"{12:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    f"1{0:02b}{3:03b}{0:08b}"
    f"1{1:02b}{3:04b}{255:08b}"
    f"0{0:02b}{3:03b}{0:032b}"
)


def packed(bits):
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_the_code_is_that_of_rle_pack():
    assert decode_brush(packed(BY_HAND), 1, 3).tolist() == [[0, 1, 0]]


@given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
@settings(max_examples=50, deadline=None)
def test_brush_round_trip(mask):
    code = encode_brush(mask)
    assert np.array_equal(decode_brush(code, *mask.shape), mask)


@given(
    st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 255), min_size=1, max_size=8)), min_size=1, max_size=9)
)
@settings(max_examples=50, deadline=None)
def test_runs_of_one_value_and_of_many(runs):
    values = [value for repeated, run in runs for value in (run[:1] * len(run) if repeated else run)]
    rest = -len(values) % 4
    runs, values = [*runs, *([(True, [0] * rest)] if rest else [])], values + [0] * rest
    bits = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    for repeated, run in runs:
        words = run[:1] if repeated else run
        bits += f"{int(repeated)}{0:02b}{len(run) - 1:03b}{''.join(f'{word:08b}' for word in words)}"
    assert decode_brush(packed(bits), 1, len(values) // 4).tolist() == [[int(alpha > 0) for alpha in values[3::4]]]


@given(st.lists(st.integers(0, 255), max_size=40))
@settings(max_examples=50, deadline=None)
def test_bytes_that_are_no_code_are_an_error_or_a_mask(code):
    for rle in (code, packed(BY_HAND)[:-2] + code):
        with contextlib.suppress(AnnotationError):
            assert decode_brush(rle, 1, 3).shape == (1, 3)


@pytest.mark.parametrize(
    "code, message",
    [
        ("12", "rle must be a list of bytes, got '12'"),
        ([1, 2, 300], "rle must be a list of bytes"),
        ([1.5], "rle must be a list of bytes"),
        (None, "rle must be a list of bytes, got None"),
        ([], "rle has 0 bytes, fewer than its header"),
        (packed(BY_HAND)[:9], "rle ends after 4 of 12 values"),
        (
            packed(BY_HAND.replace(f"{12:032b}", f"{16:032b}", 1)),
            "rle has 16 values, the image has 3 pixels of 4 channels",
        ),
    ],
)
def test_malformed_codes(code, message):
    with pytest.raises(AnnotationError, match=message):
        decode_brush(code, 1, 3)


def result(kind, value, label="cup", number="r1", **changes):
    value = value | ({f"{kind}labels": [label]} if label else {})
    sizes = {"original_height": SIZE[0], "original_width": SIZE[1], "image_rotation": 0}
    return {"id": number, "type": f"{kind}labels", "from_name": "l", "to_name": "i", "value": value} | sizes | changes


POLYGON = {"points": [[10, 10], [30, 10], [30, 40], [10, 40]], "closed": True}


def task(*results, image="/data/upload/1/3f2a1b0c-a.png", **changes):
    return {"id": 7, "data": {"image": image}, "annotations": [{"id": 1, "result": list(results)}]} | changes


@pytest.fixture
def export(write):
    """A json with these tasks and the image a.png; gives the spec."""

    def make(*tasks):
        write("images/a.png", SIZE)
        folder = write("export.json", list(tasks))
        return f"label-studio:{folder}/export.json:{folder}/images"

    return make


def test_percent_of_the_sides(export):
    box = {"x": 50, "y": 20, "width": 10, "height": 30, "rotation": 0}
    turned = box | {"rotation": 90}
    round_one = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30, "rotation": 0}
    spec = export(
        task(
            result("polygon", POLYGON),
            result("rectangle", box, number="r2"),
            result("rectangle", turned, number="r3"),
            result("ellipse", round_one, "bowl", number="r4"),
        )
    )
    record, info = read_one(spec)
    polygon, plain, tilted, ellipse = record.instances
    assert polygon.segmentation == [[2, 1, 6, 1, 6, 4, 2, 4]] and info.class_names == ("bowl", "cup")
    assert (plain.segmentation, plain.bbox) == (None, [10, 2, 2, 3])
    assert tilted.bbox == pytest.approx([7, 2, 3, 2])  # clockwise about the first corner
    assert ellipse.bbox == pytest.approx([8, 2, 4, 6], abs=0.1)
    assert record.file_name.endswith("images/a.png")
    assert polygon.annotation_id == "task 7 result 1"


def test_a_brush_is_a_mask(export):
    mask = box_mask(SIZE, 3, 2, 8, 9)
    record, _ = read_one(export(task(result("brush", {"format": "rle", "rle": encode_brush(mask)}))))
    assert same(masks(record), [mask])


def test_the_label_may_be_another_result_of_the_same_id(export):
    parts = [
        result("polygon", POLYGON, None, type="polygon"),
        result("", {**POLYGON, "labels": ["bowl"]}, None, type="labels"),
    ]
    record, info = read_one(export(task(*parts)))
    assert len(record.instances) == 1 and info.class_names == ("bowl",)


def test_shapes_of_one_id_are_objects_of_their_own_label(export, caplog):
    other = {"points": [[60, 10], [90, 10], [90, 40]]}
    again = result("polygon", POLYGON, "spoon")
    record, info = read_one(export(task(result("polygon", POLYGON), result("polygon", other, "bowl"), again)))
    assert [info.class_names[instance.category] for instance in record.instances] == ["cup", "bowl"]
    assert "1 shapes of several labels, the first is taken (task 7 result 1)" in caplog.text


def test_tasks_that_nobody_annotated_are_left_out_and_counted(export, caplog):
    cancelled, predicted = [{"was_cancelled": True, "result": []}], [{"result": [result("polygon", POLYGON)]}]
    tasks = [task(result("polygon", POLYGON)), task(id=2), task(annotations=cancelled, id=3)]
    tasks += [task(annotations=[], id=4), task(annotations=[], predictions=predicted, id=5)]
    records, _ = load_dataset(export(*tasks))
    assert [len(record.instances) for record in records] == [1, 0]
    for what in ("tasks that were skipped", "tasks without an annotation", "tasks with predictions alone"):
        assert f"1 {what}, left out" in caplog.text


def test_what_was_left_out_is_part_of_the_error(export):
    with pytest.raises(ValueError, match=r"nothing names classes \(1 results that are no masks"):
        load_dataset(export(task({"id": "c", "type": "keypointlabels", "value": {"x": 1, "y": 2}})))


def test_the_first_annotation_that_was_not_cancelled_counts(export, caplog):
    annotations = [
        {"was_cancelled": True, "result": []},
        {"result": [result("polygon", POLYGON)]},
        {"result": [result("polygon", POLYGON, "bowl")]},
    ]
    record, info = read_one(export(task(annotations=annotations)))
    assert info.class_names == ("cup",) and len(record.instances) == 1
    assert "1 further annotations of a task, dropped (task 7)" in caplog.text


def test_what_is_no_object_is_counted(export, caplog):
    choice = {"id": "c", "type": "choices", "value": {"choices": ["blurred"]}}
    relation = {"type": "relation", "from_id": "r1", "to_id": "r2"}
    unlabelled = result("polygon", POLYGON, None, number="r2")
    record, _ = read_one(export(task(result("polygon", POLYGON), choice, relation, unlabelled)))
    assert len(record.instances) == 1
    assert "2 results that are no masks, polygons, ellipses or boxes, dropped" in caplog.text
    assert "1 shapes without a label, dropped (task 7 result 4)" in caplog.text


@pytest.mark.parametrize(
    "image",
    [
        "a.png",
        "/data/local-files/?d=images/a.png",
        "s3://bucket/x/a.png",
        "https://x.y/a.png?sig=1",
        "/data/upload/a.png",
    ],
)
def test_urls_of_images(export, image):
    assert read_one(export(task(result("polygon", POLYGON), image=image)))[0].file_name.endswith("images/a.png")


@pytest.mark.parametrize(
    "tasks, message",
    [
        ([task(result("polygon", {"points": [[1, 2]]}))], r"'task 7 result 1': every polygon has fewer than 3 points"),
        ([task(result("polygon", {"points": None}))], r"points must be a list of pairs of finite numbers, got None"),
        ([task(result("brush", {"rle": [1]}))], r"'task 7 result 1': rle has 1 bytes"),
        ([task(result("rectangle", {"x": 1}))], r"y must be a finite number, got None"),
        ([task(result("polygon", POLYGON, image_rotation=90))], r"its image_rotation is 90; turn the image itself"),
        ([task(result("polygon", POLYGON), data={"text": "x"})], r"task 7: its data names no image"),
        ([task(result("polygon", POLYGON), data=None)], r"task 7: it has no data"),
        ([task(annotations={})], r"has no images \(1 tasks without an annotation, left out\)"),
        ([task(annotations=[{"result": "x"}])], r"task 7: its result must be a list, got 'x'"),
        ([task(result("polygon", POLYGON, original_width=-2))], r"height and width are 10 and -2"),
        ([{"id": 1, "image": "a.png", "label": []}], r"is it the format JSON-MIN\?"),
        ([3], r"it must be a list of tasks"),
    ],
)
def test_malformed_exports(export, tasks, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(export(*tasks))
