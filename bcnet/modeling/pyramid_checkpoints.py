"""Numbering of FPN levels in checkpoints: levels of the file and of the model are matched by their stride."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from bcnet.checkpoint.convert import Conversion


def renumber_levels(conversion: Conversion, own: Mapping[str, Tensor]) -> None:
    """Renumbers FPN blocks in place: they count from the finest level, which differs between Faster R-CNN and FCOS.

    Args:
        conversion: the file's weights under our names; blocks of a level that the model lacks are left out.
        own: the model's tensors by name.
    """
    theirs, ours = first_stage(conversion.state), first_stage(own)
    if theirs is None or ours is None or theirs == ours:
        return
    moved = {key: key.split(".") for key in conversion.state if key.startswith("backbone.fpn.")}
    # In an order in which no key overwrites one that is still to be moved.
    for key, parts in sorted(moved.items(), key=lambda item: item[1], reverse=theirs > ours):
        if parts[2] not in ("inner_blocks", "layer_blocks"):
            continue
        level = int(parts[3]) + theirs - ours
        if level < 0:
            conversion.leave_out(key, "the model has no such pyramid level", harmless=False)
        else:
            conversion.rename(key, ".".join([*parts[:3], str(level), *parts[4:]]))


def first_stage(keys: Iterable[str]) -> int | None:
    """The backbone stage of the pyramid's finest level, 2 or 3; None without an FPN."""
    levels = set()
    for key in keys:
        match = re.match(r"backbone\.(?:fpn_lateral|fpn\.inner_blocks\.)(\d+)\.", key)
        if match:
            levels.add((int(match[1]), "fpn_lateral" in key))
    if not levels:
        return None
    if any(named_by_stage for _, named_by_stage in levels):
        return min(level for level, _ in levels)
    # Levels counted from 0 end with stage 5.
    return 5 - max(level for level, _ in levels)
