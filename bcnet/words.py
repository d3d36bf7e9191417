"""Words of messages and results: counts with their noun, names of classes."""

from __future__ import annotations

from collections.abc import Sequence

OBJECT = "object"  # the only class of boxes that were given without classes


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "no image", "1 image", "2 images".

    Args:
        noun: in the singular.
        plural: where it is not the noun with an "s": "classes".
    """
    return f"{count} {plural or noun + 's'}" if count > 1 else f"{count or 'no'} {noun}"


def class_name(label: int, names: Sequence[str]) -> str:
    """The name of a class; "class 3" where names are not known.

    Args:
        label: the class, 0..K-1.
        names: K names, or none.
    """
    return str(names[label]) if names else f"class {label}"
