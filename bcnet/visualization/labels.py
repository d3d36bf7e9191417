"""Greedy non-overlapping label placement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Rectangle = tuple[int, int, int, int]  # x0, y0, x1, y1, the last two exclusive
LARGE_BOX = 6  # times a label's area: such a box has its label inside rather than below it


def place_labels(
    boxes: Sequence[Sequence[float]],
    sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
    *,
    taken: Sequence[Rectangle] = (),
) -> list[Rectangle | None]:
    """A position for each label at its box, inside the image and without overlap with other labels.

    Labels are placed in the given order, so give the most important first. Candidates are the positions above and
    below the box and in its corners, then all along its left, right and upper side.

    Args:
        boxes: xyxy in absolute pixels.
        sizes: (width, height) of each label.
        image_size: (H, W).
        taken: rectangles of labels that are there already.

    Returns:
        list: the rectangle of each label, or None where every position is taken or the label is larger than the image.
    """
    placed = list(taken)
    result: list[Rectangle | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        rectangle = next(
            (place for place in _candidates(box, size, image_size) if not any(overlap(place, p) for p in placed)), None
        )
        if rectangle is not None:
            placed.append(rectangle)
        result.append(rectangle)
    return result


def overlap(first: Rectangle, second: Rectangle) -> bool:
    """True if two rectangles share a pixel."""
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _candidates(box: Sequence[float], size: tuple[int, int], image_size: tuple[int, int]) -> Iterator[Rectangle]:
    (width, height), (image_height, image_width) = size, image_size
    if width > image_width or height > image_height:
        return
    x0, y0, x1, y1 = (round(value) for value in box)
    above = [(x0, y0 - height), (x1 - width, y0 - height)]
    below = [(x0, y1), (x1 - width, y1)]
    inside = [(x0, y0), (x1 - width, y0), (x0, y1 - height), (x1 - width, y1 - height)]
    # In a small box a label hides the object itself.
    is_large = (x1 - x0) * (y1 - y0) >= LARGE_BOX * width * height
    corners = above + inside + below if is_large else above + below + inside
    # Labels of these places may be moved into the image, but not away from their box.
    for x, y in corners:
        x = min(max(x, 0), image_width - width)
        if 0 <= y <= image_height - height:
            yield x, y, x + width, y + height
    along = [(x, y) for y in range(y0, y1 - height, max(height // 2, 1)) for x in (x0, x1 - width)]
    along += [(x, y) for x in range(x0, x1 - width, max(width // 4, 1)) for y in (y0 - height, y0, y1)]
    for x, y in along:
        if 0 <= x <= image_width - width and 0 <= y <= image_height - height:
            yield x, y, x + width, y + height
