"""A mask head: the bilayer head with one more map, the core of each object, and one more loss."""

from bcnet.bilayer import mask_boundary
from bcnet.maps import OCCLUDEE, MapSpec
from bcnet.modeling import MASK_HEAD_REGISTRY
from bcnet.modeling.mask_heads import BilayerMaskHead, bilayer_keywords


def core(masks):
    """The pixels of masks, bool [N, M, M], that are not on their boundary."""
    return masks & ~mask_boundary(masks)


OCCLUDEE_CORE = MapSpec(
    name="occludee_core",  # the decoder's name in checkpoints, and the map's in `Detections.maps`
    short_name="core",  # its key in COCO results
    layer=OCCLUDEE,  # decoded from the occludee layer's features
    kind="core",
    target=OCCLUDEE,  # learns from the instance's own mask ...
    derive=core,  # ... made into this
    loss_name="loss_mask_core",
    weight=0.5,
    title="core",
)


@MASK_HEAD_REGISTRY.register()
class CoreMaskHead(BilayerMaskHead):
    """Predicts cores too, and learns that a pixel does not belong to the instance and to its occluder."""

    @classmethod
    def from_config(cls, cfg, in_channels):
        keywords = bilayer_keywords(cfg, in_channels)
        return cls(in_channels, **{**keywords, "maps": (*keywords["maps"], OCCLUDEE_CORE)})

    def losses(self, logits, layers, *, negative_ratio=1.0):
        losses = super().losses(logits, layers, negative_ratio=negative_ratio)
        both = logits["occludee_mask"].sigmoid() * logits["occluder_mask"].sigmoid()
        losses["loss_overlap"] = 0.1 * both.sum() / max(both.numel(), 1)  # zero, and differentiable, without RoIs
        return losses
