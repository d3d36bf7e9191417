"""The detectron2 plugin: importing it registers the mask heads, FCOS, its backbone and timm's.

It adapts detectron2's `Instances`, config and catalogs to bcnet's own components and does not re-implement them. See
`docs/detectron2.md` for its use.
"""

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "bcnet.detectron2 needs detectron2, which is on no package index; build it from source as its INSTALL.md says"
    ) from error

from bcnet.config.defaults import add_bcnet_config
from bcnet.detectron2.backbone import build_bcnet_fcos_resnet_fpn_backbone
from bcnet.detectron2.checkpoint import BCNetCheckpointer
from bcnet.detectron2.convert import detections_to_instances, instances_to_detections
from bcnet.detectron2.dataset_mapper import BCNetDatasetMapper
from bcnet.detectron2.datasets import register_datasets
from bcnet.detectron2.evaluation import BCNetEvaluator, all_maps
from bcnet.detectron2.fcos import BCNetFCOS
from bcnet.detectron2.freezing import freeze_detector
from bcnet.detectron2.keys import derive_from_backbone
from bcnet.detectron2.mask_head import BilayerMaskHead, PlainMaskHead, SideBranchMaskHead
from bcnet.detectron2.occluders import add_occluder_masks
from bcnet.detectron2.postprocessing import paste_layers
from bcnet.detectron2.train import BCNetTrainer
from bcnet.detectron2.tta import BCNetFCOSWithTTA, with_test_time_augmentation

__all__ = [
    "BCNetCheckpointer",
    "BCNetDatasetMapper",
    "BCNetEvaluator",
    "BCNetFCOS",
    "BCNetFCOSWithTTA",
    "BCNetTrainer",
    "BilayerMaskHead",
    "PlainMaskHead",
    "SideBranchMaskHead",
    "add_bcnet_config",
    "add_occluder_masks",
    "all_maps",
    "build_bcnet_fcos_resnet_fpn_backbone",
    "derive_from_backbone",
    "detections_to_instances",
    "freeze_detector",
    "instances_to_detections",
    "paste_layers",
    "register_datasets",
    "with_test_time_augmentation",
]
