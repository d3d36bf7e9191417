"""Class matching by name between weights, training sets, test sets and results files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

logger = logging.getLogger(__name__)


def match_classes(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """The position in `others` of the class of each name; None if it has no match.

    Two equal lists match position by position, duplicate names included. Otherwise a name matches an equal one; names
    without an equal one are compared ignoring case and surrounding white space. A name that occurs twice on either side
    has no match, because it is ambiguous.
    """
    if list(names) == list(others):
        return list(range(len(names)))
    matched = _unique_matches(list(names), list(others))
    loose = _unique_matches([_loose(name) for name in names], [_loose(name) for name in others])
    taken = {position for position in matched if position is not None}
    return [
        exact if exact is not None else position if position not in taken else None
        for exact, position in zip(matched, loose, strict=True)
    ]


def class_positions(names: Sequence[str], others: Sequence[str], source: str, other_source: str) -> list[int | None]:
    """`match_classes`, with a warning that shows both lists if some names have no match.

    Args:
        source, other_source: where the names come from, for messages.

    Raises:
        ValueError: no name has a match; the message shows both lists.
    """
    positions = match_classes(names, others)
    without = [name for name, position in zip(names, positions, strict=True) if position is None]
    if names and len(without) == len(names):
        raise ValueError(f"no class of {source} is a class of {other_source}: {both(names, others)}")
    if without:
        logger.warning(
            "%d of %d classes of %s are not classes of %s (%s): %s",
            *(len(without), len(names), source, other_source, ", ".join(without), both(names, others)),
        )
    return positions


def detected_classes(
    class_names: Sequence[str], num_classes: int, dataset_names: Sequence[str], dataset: str
) -> list[int]:
    """Maps the classes of a model to those of a data set, to evaluate the model on it.

    Classes are matched by name if the model's names are known, otherwise by position. The data set may have its classes
    in another order, or a subset of the model's. Classes of the data set that the model lacks are never detected, so
    their AP is 0; a warning names them.

    Args:
        class_names: names of the model's classes 0..K-1; empty if unknown.
        num_classes: K.
        dataset_names: names of the data set's classes.
        dataset: its name, for messages.

    Returns:
        list: for each of the K classes the data set's class, or -1 if the data set lacks it.

    Raises:
        ValueError: no class of the data set is a class of the model; or the names are unknown and the data set has more
            classes than the model.
    """
    count = len(dataset_names)
    if len(class_names) > num_classes:
        raise ValueError(
            f"a model of {num_classes} classes cannot have {len(class_names)} names ({listed(class_names)})"
        )
    if class_names:
        positions = class_positions(dataset_names, class_names, f"data set {dataset!r}", "the model")
    elif count > num_classes:
        raise ValueError(
            f"data set {dataset!r} has {count} classes ({listed(dataset_names)}), the model was built for "
            f"{num_classes} and its weights name none; set MODEL.ROI_HEADS.NUM_CLASSES"
        )
    else:
        positions = list(range(count))
    detected = [-1] * num_classes
    for class_of_dataset, position in enumerate(positions):
        if position is not None:
            detected[position] = class_of_dataset
    if -1 in detected:
        logger.warning(
            "Data set %r has %d classes, the model %d: detections of the others are left out",
            *(dataset, count, num_classes),
        )
    return detected


def training_classes(
    names: Sequence[str], weights_names: Sequence[str], num_classes: int
) -> tuple[list[str], list[int]]:
    """Assigns the classes of the training data to the predictor rows of the weights that training starts from.

    The predictors' rows keep their order. Each class of the data takes the row of the class of the same name in the
    weights; a class that the weights lack takes a row without a name, or else the row of a class that the data lacks,
    and is named in a warning.

    Args:
        names: class names of the training data.
        weights_names: class names of the weights; empty if unknown. If there are more than `num_classes` they are
            ignored: the predictors then have another shape and are re-initialised.
        num_classes: rows of the predictors, at least as many as there are names.

    Returns:
        The names by row, at most `num_classes`, and the row of each class of the data.
    """
    if not weights_names or len(weights_names) > num_classes or list(names) == list(weights_names):
        return list(names), list(range(len(names)))
    rows = match_classes(names, weights_names)
    new = [name for name, row in zip(names, rows, strict=True) if row is None]
    if new:
        logger.warning(
            "%d of %d classes of the training data are not classes of the weights, whose rows for other classes they "
            "start from (%s): %s",
            *(len(new), len(names), listed(new), both(names, weights_names)),
        )
    if len(new) == len(names):
        return list(names), list(range(len(names)))
    if not new:
        logger.info("The classes of the training data are trained in the order of the weights: %s", weights_names)
    by_row = list(weights_names)
    unused = [row for row in range(num_classes) if row not in rows]
    free = iter(sorted(unused, key=lambda row: row < len(weights_names)))  # rows without a name first
    row_of_class: list[int] = []
    for name, row in zip(names, rows, strict=True):
        if row is None:
            row = next(free)
            by_row[row : row + 1] = [name]
        row_of_class.append(row)
    return by_row, row_of_class


def class_labels(names: Sequence[str], category_ids: Sequence[int]) -> list[str]:
    """Unique labels of classes: the name, followed by the category id where names are equal."""
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name} (id {category_id})"
        for name, category_id in zip(names, category_ids, strict=True)
    ]


def both(names: Sequence[str], others: Sequence[str]) -> str:
    """Two lists of class names, for a message."""
    return f"[{listed(names)}] and [{listed(others)}]"


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Class names for a message; a long list is truncated: "person, bicycle, and 78 more"."""
    more = len(names) - limit
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:limit])}, and {more} more"


def _unique_matches(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    counts, other_counts = Counter(names), Counter(others)
    positions = {name: position for position, name in enumerate(others) if other_counts[name] == 1}
    return [positions.get(name) if counts[name] == 1 else None for name in names]


def _loose(name: str) -> str:
    return name.strip().casefold()
