"""Lists of a JSON file that are parsed element by element: the same values, and the same errors, as of json."""

from __future__ import annotations

import json

import pytest

from bcnet.data.coco import mask_reader
from bcnet.data.occluder_annotations import convert_annotations
from bcnet.files import parse_json
from bcnet.lazy_json import LazyList, parse_lazily

CONTENT = {
    "info": {"annotations": [1, 2], "näme": "☂"},
    "annotations": [{"id": 1, "bbox": [0.5, -1e3, 2, 3]}, "text, ] }", None, [], {}, 7, [[1], {"a": [2]}]],
    "images": [{"id": 1}],
    "empty": [],
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_values_are_those_of_json(indent, encoding):
    text = json.dumps(CONTENT, indent=indent, ensure_ascii=False) + "\n "
    content = parse_lazily(text.encode(encoding), ("annotations", "empty", "absent"))
    lazy, empty = content["annotations"], content["empty"]
    assert isinstance(lazy, LazyList) and isinstance(empty, LazyList) and list(content) == list(CONTENT)
    assert {**content, "annotations": list(lazy), "empty": list(empty)} == CONTENT
    assert [lazy[i] for i in range(len(lazy))] == CONTENT["annotations"] and lazy[-1] == CONTENT["annotations"][-1]
    assert lazy[1:3] == CONTENT["annotations"][1:3] and not empty
    assert lazy[0] is not lazy[0]  # nothing is kept


@pytest.mark.parametrize("text", ["[1, 2]", '{"annotations": 3}', "{}", '"x"', '{"a": 1, "a": {"annotations": [1]}}'])
def test_what_has_no_such_list_is_parsed_as_ever(text):
    assert parse_lazily(text.encode(), ("annotations",)) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"annotations"',
        '{"annotations": [',
        '{"annotations": [1, ',
        '{"annotations": [1, ]}',
        '{"annotations": [1 2]}',
        '{"annotations": [1]',
        '{"annotations": [1]} x',
        '{"annotations": [1],}',
        "{3: [1]}",
        '{"annotations" [1]}',
        '{"annotations": [{"id": 1, }]}',
        '{"annotations": [nul]}',
    ],
)
def test_errors_are_those_of_json(text):
    with pytest.raises(ValueError) as expected:
        parse_json(text.encode(), "some.json")
    with pytest.raises(ValueError) as found:
        parse_json(text.encode(), "some.json", lazy_lists=("annotations",))
    assert str(found.value) == str(expected.value)


def test_conversion_keeps_one_annotation_at_a_time(tmp_path, monkeypatch):
    square = [10.0, 10, 40, 10, 40, 40, 10, 40]
    annotations = [
        {"id": k, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "segmentation": [square]} for k in (1, 2)
    ]
    content = {"images": [{"id": 1, "height": 64, "width": 64}], "annotations": annotations}
    (tmp_path / "in.json").write_text(json.dumps(content))
    seen = []

    def watched(content, *args, **keywords):
        seen.append(content["annotations"])
        return mask_reader(content, *args, **keywords)

    monkeypatch.setattr("bcnet.data.occluder_annotations.mask_reader", watched)
    convert_annotations(str(tmp_path / "in.json"), str(tmp_path / "out.json"))
    (annotations,) = seen
    assert isinstance(annotations, LazyList)
    written = json.loads((tmp_path / "out.json").read_text())
    assert [a.pop("bg_object_segmentation")["size"] for a in written["annotations"]] == [[64, 64]] * 2
    assert written == content
