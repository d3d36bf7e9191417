"""Output maps of a mask head as records: prediction target, loss and loss weight, and names in results and files.

A mask head declares its maps (`bcnet.bilayer.MaskHead.maps`) and returns logits by map name. Losses, `Detections`,
converters, result files, pictures and the detectron2 plugin iterate over these records: a new map needs only a new
record in the file of its head.

Letters: N RoIs, M mask side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OCCLUDEE, OCCLUDER, AMODAL = "occludee", "occluder", "amodal"  # layers of `InstanceMasks`
MASK, BOUNDARY = "mask", "boundary"  # kinds of maps; and AMODAL: the whole object, hidden part included
UNKNOWN = "unknown"  # kind of a map of training targets in pictures: where the mask of its layer is unknown


def unknown_layer(layer: str) -> str:
    """Name of the layer of `InstanceMasks` that says of which pixels another layer is not known."""
    return f"{layer}_unknown"


@dataclass(frozen=True, kw_only=True)
class MapSpec:
    """One map of a mask head: M x M values for each RoI.

    Attributes:
        name: key of the head's output, of its decoder's tensors in checkpoints and of `Detections.maps`.
        short_name: singular noun that names in other formats are made of (`plural`, `coco_key`, `detectron2_field`).
        layer: layer of the head that the map is decoded from, "occluder" or "occludee" in the bilayer head.
        kind: "mask", "boundary" (predicts the boundary of its target), "amodal", or a custom kind.
        target: layer of `InstanceMasks` that is cropped to the RoI as the target.
        derive: computes the target from the cropped layer, bool [N, M, M] to bool or float [N, M, M]; None uses
            the crop itself, or for kind "boundary" its boundary.
        loss: per-pixel loss of logits and float targets, [N, M, M] each; None is binary cross-entropy.
        loss_name: key of the loss in logs and metrics.
        weight: of the loss.
        balanced_by: layer of `InstanceMasks`; the loss is averaged over the RoIs in whose crop this layer is not empty
            and as many negative RoIs (`bcnet.bilayer.balanced_rois`). None uses all RoIs.
        on_request: inference computes the map only if all maps are requested, not if only masks are.
        title: column title in pictures.
    """

    name: str
    short_name: str
    layer: str
    target: str
    loss_name: str
    kind: str = MASK
    derive: Callable[[Tensor], Tensor] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    weight: float = 1.0
    balanced_by: str | None = None
    on_request: bool = True
    title: str = ""

    @property
    def plural(self) -> str:
        """The short name in the plural, such as "occluder_masks"."""
        return f"{self.short_name[:-1]}ies" if self.short_name.endswith("y") else f"{self.short_name}s"

    @property
    def coco_key(self) -> str:
        """Key of the map's RLE in COCO annotations: "segmentation" for the mask, as COCO calls it."""
        return self.short_name.replace("mask", "segmentation")

    @property
    def detectron2_field(self) -> str:
        """Field of detectron2's `Instances`, such as "pred_masks"."""
        return f"pred_{self.plural}"


# The four maps of the published head, with the weights of its losses. The published code writes the boundary loss as
# 0.5 times twice the binary cross-entropy: 1.
OCCLUDEE_MASK = MapSpec(
    name="occludee_mask",
    short_name="mask",
    layer=OCCLUDEE,
    target=OCCLUDEE,
    loss_name="loss_mask",
    on_request=False,
    title="mask",
)
OCCLUDEE_BOUNDARY = MapSpec(
    name="occludee_boundary",
    short_name="boundary",
    layer=OCCLUDEE,
    kind=BOUNDARY,
    target=OCCLUDEE,
    loss_name="loss_mask_boundary",
    title="boundary",
)
OCCLUDER_MASK = MapSpec(
    name="occluder_mask",
    short_name="occluder_mask",
    layer=OCCLUDER,
    target=OCCLUDER,
    loss_name="loss_occluder_mask",
    weight=0.25,
    balanced_by=OCCLUDER,
    title="mask",
)
OCCLUDER_BOUNDARY = MapSpec(
    name="occluder_boundary",
    short_name="occluder_boundary",
    layer=OCCLUDER,
    kind=BOUNDARY,
    target=OCCLUDER,
    loss_name="loss_occluder_boundary",
    balanced_by=OCCLUDER,
    title="boundary",
)
PUBLISHED_MAPS = (OCCLUDEE_MASK, OCCLUDEE_BOUNDARY, OCCLUDER_MASK, OCCLUDER_BOUNDARY)

# The whole object beside its visible part (MODEL.BILAYER.AMODAL).
OCCLUDEE_AMODAL = MapSpec(
    name="occludee_amodal",
    short_name="amodal_mask",
    layer=OCCLUDEE,
    kind=AMODAL,
    target=AMODAL,
    loss_name="loss_amodal",
    on_request=False,
    title="amodal mask",
)
BUILT_IN_MAPS = (*PUBLISHED_MAPS, OCCLUDEE_AMODAL)
RESULT_MAPS = (OCCLUDEE_MASK.name, OCCLUDEE_AMODAL.name)  # in results files of data sets
_ORIGINS = {spec.name: "predict with with_occluder=True" for spec in PUBLISHED_MAPS if spec.on_request} | {
    OCCLUDEE_AMODAL.name: "models trained with MODEL.BILAYER.AMODAL True have it"
}


def absent_map(name: str, present: Iterable[str]) -> ValueError:
    """The error for a map that detections lack: names those that they have, and where a built-in map comes from."""
    present = tuple(present)
    hint = f"; {_ORIGINS[name]}" if name in _ORIGINS else ""
    requested = {spec.name for spec in PUBLISHED_MAPS if spec.on_request}
    if name in requested and requested.intersection(present):  # they were asked for
        hint = "; not every mask head predicts it, BilayerMaskHead does"
    return ValueError(f"these detections have no {name}; present are: {', '.join(present) or 'none'}{hint}")


def with_weights(maps: Sequence[MapSpec], weights: Mapping[str, float]) -> tuple[MapSpec, ...]:
    """Copies of the maps with new loss weights, by map name; maps that are not named keep theirs.

    Raises:
        ValueError: a weight that is negative or no number, or of a name that neither these maps nor the built-in ones
            have.
    """
    known = dict.fromkeys(spec.name for spec in (*maps, *BUILT_IN_MAPS))
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"the loss weight of map {name!r} is {weight}; it must be a number of at least 0")
        if name not in known:
            raise ValueError(f"loss_weights names the map {name!r}; there are {', '.join(known)}")
    return tuple(replace(spec, weight=weights.get(spec.name, spec.weight)) for spec in maps)


def required_layers(maps: Sequence[MapSpec]) -> tuple[str, ...]:
    """Layers of `InstanceMasks` that the targets of these maps are computed from, the occludee first."""
    layers = [OCCLUDEE, *(spec.target for spec in maps), *(spec.balanced_by for spec in maps if spec.balanced_by)]
    return tuple(dict.fromkeys(layers))
