"""Class matching by name between data sets and weights."""

import logging

import pytest

from bcnet.data.classes import class_labels, class_positions, detected_classes, match_classes, training_classes


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        ([], ["a"], []),
        (["a", "b"], ["a", "b"], [0, 1]),
        (["b", "c", "a"], ["a", "b", "c"], [1, 2, 0]),
        (["c"], ["a", "b", "c"], [2]),
        (["a", "d"], ["a", "b"], [0, None]),
        # Ignoring case and white space if that is unique, and after equal names.
        (["Cat ", "DOG"], ["dog", "cat"], [1, 0]),
        (["cat"], ["CAT", "cat"], [1]),
        (["cat"], ["CAT", "Cat"], [None]),
        (["cat", "Cat"], ["cat"], [0, None]),
        (["Cat", "CAT"], ["cat"], [None, None]),
        # Duplicate names: by position in equal lists, otherwise ambiguous.
        (["a", "a", "b"], ["a", "a", "b"], [0, 1, 2]),
        (["a", "b"], ["b", "a", "a"], [None, 0]),
        (["a", "a"], ["a", "b"], [None, None]),
    ],
)
def test_match_classes(names, others, expected):
    assert match_classes(names, others) == expected


def test_classes_without_a_match_are_named_with_both_lists(caplog):
    assert class_positions(["a", "x"], ["a", "b"], "one.json", "two.json") == [0, None]
    assert "1 of 2 classes of one.json are not classes of two.json (x): [a, x] and [a, b]" in caplog.text
    with pytest.raises(ValueError, match=r"no class of one.json is a class of two.json: \[x\] and \[a, b\]"):
        class_positions(["x"], ["a", "b"], "one.json", "two.json")


@pytest.mark.parametrize(
    ("model", "num_classes", "dataset", "expected"),
    [
        (("a", "b", "c"), 3, ("a", "b", "c"), [0, 1, 2]),
        (("a", "b", "c"), 3, ("c", "a", "b"), [1, 2, 0]),
        (("a", "b", "c"), 3, ("c", "a"), [1, -1, 0]),
        (("a", "b", "c"), 5, ("c", "a", "b"), [1, 2, 0, -1, -1]),  # two outputs without a name
        (("a", "b"), 2, ("b", "x", "a"), [2, 0]),
        ((), 3, ("x", "y", "z"), [0, 1, 2]),
        ((), 3, ("x", "y"), [0, 1, -1]),
    ],
)
def test_detected_classes(model, num_classes, dataset, expected):
    assert detected_classes(model, num_classes, dataset, "val") == expected


def test_equal_classes_give_no_warning_and_others_do(caplog):
    detected_classes((), 2, ("x", "y"), "val")
    detected_classes(("a", "b"), 2, ("b", "a"), "val")
    assert not caplog.records
    detected_classes(("a", "b", "c"), 3, ("c", "a"), "val")
    assert "'val' has 2 classes, the model 3: detections of the others are left out" in caplog.text
    detected_classes(("a", "b"), 2, ("b", "x"), "val")
    assert "1 of 2 classes of data set 'val' are not classes of the model (x): [b, x] and [a, b]" in caplog.text
    with pytest.raises(ValueError, match=r"no class of data set 'val' .*: \[x, y\] and \[a, b\]"):
        detected_classes(("a", "b"), 2, ("x", "y"), "val")
    with pytest.raises(ValueError, match=r"'val' has 3 classes \(x, y, z\), the model was built for 2"):
        detected_classes((), 2, ("x", "y", "z"), "val")
    with pytest.raises(ValueError, match=r"a model of 2 classes cannot have 3 names \(a, b, c\)"):
        detected_classes(("a", "b", "c"), 2, ("a",), "val")


@pytest.mark.parametrize(
    ("data", "weights", "num_classes", "names", "rows"),
    [
        ("abc", "", 3, "abc", [0, 1, 2]),  # weights without names
        ("abc", "abc", 3, "abc", [0, 1, 2]),
        ("cab", "abc", 3, "abc", [2, 0, 1]),
        ("ca", "abc", 3, "abc", [2, 0]),
        ("cab", "abc", 5, "abc", [2, 0, 1]),
        ("ab", "abcd", 2, "ab", [0, 1]),  # the predictors are of another shape
        ("xc", "abc", 3, "xbc", [0, 2]),  # x starts from the row of a
        ("xc", "abc", 5, "abcx", [3, 2]),  # or from one without a name
        ("xcyz", "abc", 5, "zbcxy"[:5], [3, 2, 4, 0]),
        ("xyz", "abc", 3, "xyz", [0, 1, 2]),
        ("aab", "baa", 3, "baa", [1, 2, 0]),  # duplicate names: in free rows
    ],
)
def test_classes_are_trained_in_the_order_of_the_weights(data, weights, num_classes, names, rows):
    assert training_classes(tuple(data), tuple(weights), num_classes) == (list(names), rows)


def test_new_classes_are_named_with_both_lists(caplog):
    caplog.set_level(logging.INFO)
    training_classes(("c", "a"), ("a", "b", "c"), 3)
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    training_classes(("x", "c"), ("a", "b", "c"), 3)
    assert "1 of 2 classes of the training data are not classes of the weights" in caplog.text
    assert "(x): [x, c] and [a, b, c]" in caplog.text
    training_classes(("x", "y"), ("a", "b"), 2)
    assert "2 of 2 classes of the training data are not classes of the weights" in caplog.text


def test_labels_of_duplicate_names_are_unique():
    assert class_labels(["a", "b", "a"], [1, 3, 7]) == ["a (id 1)", "b", "a (id 7)"]
    assert class_labels(["a", "b"], [1, 3]) == ["a", "b"]
