"""Channels and strides of detectron2's `ShapeSpec`, all of whose fields are optional."""

from __future__ import annotations

from detectron2.layers import ShapeSpec


def shape_value(shape: ShapeSpec, field: str) -> int:
    """The value of a field that must be set.

    Args:
        field: "channels", "height", "width" or "stride".

    Raises:
        ValueError: it is None.
    """
    value = getattr(shape, field)
    if value is None:
        raise ValueError(f"{shape} has no {field}")
    return value
