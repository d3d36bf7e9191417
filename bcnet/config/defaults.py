"""Default config: every config key with its default value and meaning.

Keys that detectron2 has keep detectron2's name and meaning, so that one YAML file runs on either host.
Where our default is not detectron2's (its defaults describe a C4 model, ours an FPN), the files
`configs/Base-*.yaml` set the value. `add_bcnet_config` adds the keys that detectron2 does not have; the
detectron2 plugin calls the same function on detectron2's own config.

A key marked "read by detectron2 only" exists so that one file runs on both hosts: bcnet derives the same from other
keys, and rejects a value that contradicts them. Other keys of detectron2 are accepted in files if their value requests
what bcnet does (`bcnet/config/detectron2_keys.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from bcnet.config.node import CfgNode, Level
from bcnet.maps import BUILT_IN_MAPS

_registered: list[Callable[[CfgNode], None]] = []


def register_config(add_keys: Callable[[CfgNode], None]) -> Callable[[CfgNode], None]:
    """Decorator that adds the keys of another package to every config created afterwards.

    Args:
        add_keys: adds keys to its argument, a config, in place, as `add_bcnet_config` does. Registering a
            function of the same module and name again replaces it.
    """
    name = (add_keys.__module__, add_keys.__qualname__)
    _registered[:] = [other for other in _registered if (other.__module__, other.__qualname__) != name]
    _registered.append(add_keys)
    return add_keys


def get_cfg() -> CfgNode:
    """A fresh copy of the default config."""
    cfg = default_config()
    cfg.note_level(Level.DEFAULT, cfg.flat_keys())
    return cfg


def add_bcnet_config(cfg) -> None:
    """Adds our keys that detectron2 lacks, and those of `register_config`, in place.

    A key that the config has already, from an earlier call or of another project, keeps its value.

    Raises:
        ValueError: another project has one of our keys with a value of another type.
    """
    own = cfg.clone()
    _add_keys(own)
    for add_keys in _registered:
        add_keys(own)
    _add_missing(cfg, own, "")


def _add_missing(cfg, own, prefix: str) -> None:
    """Adds the keys of a config that another one lacks."""
    for name, default in own.items():
        if name not in cfg:
            setattr(cfg, name, default)
        elif isinstance(default, dict) and isinstance(cfg[name], dict):
            _add_missing(cfg[name], default, f"{prefix}{name}.")
        elif _kind(cfg[name]) is not _kind(default):
            raise ValueError(
                f"the config has {prefix}{name} already, of another project: {cfg[name]!r}; bcnet has a "
                f"{_KIND_NAMES.get(_kind(default), _kind(default).__name__)} of this name. One config cannot have both"
            )


_KIND_NAMES = {float: "number", dict: "section"}


def _kind(value: object) -> type:
    """The value's type, of which numbers have one and lists and tuples one."""
    if isinstance(value, bool):
        return bool
    kinds = {dict: dict, (int, float): float, (list, tuple): list}
    return next((kind for types, kind in kinds.items() if isinstance(value, types)), type(value))


def _add_keys(cfg) -> None:
    node = type(cfg)

    # -- Mask heads with occluder maps (MODEL.ROI_MASK_HEAD.NAME: "BilayerMaskHead", "SideBranchMaskHead") ----------
    bilayer = cfg.MODEL.BILAYER = node()
    # The non-local graph convolution: after the second conv of each layer, or in the side branch.
    bilayer.GCN = True
    bilayer.BOUNDARY = True  # boundary decoders and their losses
    # A further map of the occludee: its amodal mask, hidden part included. Needs training sets with amodal masks.
    bilayer.AMODAL = False
    bilayer.GCN_NORM = "BN"  # of the graph convolution; or "SyncBN": batch statistics of all processes
    bilayer.FREEZE_GCN_NORM = False  # keep the GCN's BatchNorm statistics fixed in training
    # Read by detectron2 only: inference also returns the occluder's maps and boundaries (in bcnet an argument).
    bilayer.OUTPUT_LAYERS = False
    bilayer.LOSS_WEIGHT = node()
    # OCCLUDEE_MASK 1.0, OCCLUDEE_BOUNDARY 1.0, OCCLUDER_MASK 0.25, OCCLUDER_BOUNDARY 1.0, OCCLUDEE_AMODAL 1.0
    for spec in BUILT_IN_MAPS:
        bilayer.LOSS_WEIGHT[spec.name.upper()] = spec.weight
    # Occluder losses: number of sampled RoIs without an occluder per RoI with one; -1 uses all RoIs.
    bilayer.OCCLUDER_NEGATIVE_RATIO = 1.0
    # What the occluder layer learns: "neighbours", every neighbour not known to lie behind (the published rule), or
    # "front", only what is known to lie in front; pixels of neighbours whose order is unknown have no loss.
    bilayer.OCCLUDER_TARGET = "neighbours"

    # The plain head (MODEL.ROI_MASK_HEAD.NAME: "PlainMaskHead", in bcnet also "MaskRCNNConvUpsampleHead") with a second
    # decoder, for the boundary of the mask.
    cfg.MODEL.ROI_MASK_HEAD.BOUNDARY = False
    # Mask RoIs are the boxes scaled by this factor around their centre: an amodal mask reaches beyond the visible box.
    cfg.MODEL.ROI_MASK_HEAD.ROI_SCALE = 1.0
    # In training each side of a mask RoI moves by up to this share of the box's width or height, so that masks do not
    # depend on exact boxes.
    cfg.MODEL.ROI_MASK_HEAD.BOX_JITTER = 0.0

    # Train the mask branch only, on features and RoIs of a detector frozen at MODEL.WEIGHTS.
    cfg.MODEL.FREEZE_DETECTOR = False
    # torch.compile for the networks of the detector, in training and inference; the first batches take minutes.
    cfg.MODEL.COMPILE = False

    # -- Classifiers of timm (MODEL.BACKBONE.NAME: "build_timm_fpn_backbone"; with P6 and P7 for FCOS:
    # "build_bcnet_fcos_timm_fpn_backbone"); ImageNet weights: MODEL.WEIGHTS "timm://NAME" or a file of timm's -----
    timm = cfg.MODEL.TIMM = node()
    timm.NAME = "convnext_tiny"  # any that gives features of strides 4 to 32, or a plain ViT
    timm.NORM = "FrozenBN"  # of its BatchNorm, where it has any; or "BN", "SyncBN"
    timm.DROP_PATH = 0.0  # probability of stochastic depth in training
    # MODEL.PIXEL_MEAN, MODEL.PIXEL_STD and INPUT.FORMAT are those of timm's data config; False: as they are set.
    timm.DATA_CONFIG = True

    # -- FCOS (MODEL.META_ARCHITECTURE: "BCNetFCOS"); classes: MODEL.ROI_HEADS.NUM_CLASSES ------
    fcos = cfg.MODEL.FCOS = node()
    fcos.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    fcos.NUM_CONVS = 4
    fcos.NORM_GROUPS = 32  # GroupNorm groups of the towers
    fcos.PRIOR_PROB = 0.01
    fcos.CENTER_SAMPLING_RADIUS = 1.5  # in strides; 0 uses the whole box
    fcos.SIZES_OF_INTEREST = [64, 128, 256, 512]  # upper bound of max(l, t, r, b) per level, last is inf
    fcos.FOCAL_LOSS_ALPHA = 0.25
    fcos.FOCAL_LOSS_GAMMA = 2.0
    fcos.BOX_LOSS_WEIGHT = 1.25
    fcos.SCORE_THRESH_TEST = 0.03  # on the class probability, before centerness
    fcos.TOPK_CANDIDATES_TEST = 1000  # per level
    fcos.NMS_THRESH_TEST = 0.6
    # Maximum number of training RoIs of the mask branch per image, sampled from its detections and the ground-truth
    # boxes; more than any image of COCO has, so as published there. 0 takes all.
    fcos.MASK_ROIS_PER_IMAGE = 512

    # -- Data ----------------------------------------------------------------------------------
    cfg.INPUT.MASK_TARGET = "visible"  # target of the occludee mask: "visible" or "amodal"
    cfg.INPUT.BAD_IMAGE = "raise"  # an unreadable image: "raise" an error, or "skip" and count it
    cfg.INPUT.MAX_IMAGE_PIXELS = 178_956_970  # larger images are unreadable; 0 is no limit (default: Pillow's)
    _add_augmentation_keys(cfg.INPUT)

    # -- Evaluation ------------------------------------------------------------------------------
    cfg.TEST.METRICS = ()  # names of registered metrics to compute; empty: all
    cfg.TEST.OLAC_LABELS = ""  # file of COCO-OLAC's occlusion levels, for AP by level

    # -- Solver ----------------------------------------------------------------------------------
    cfg.SOLVER.OPTIMIZER = "SGD"  # or "AdamW"
    cfg.SOLVER.ACCUMULATE_STEPS = 1  # gradient accumulation: forward-backward passes per IMS_PER_BATCH
    cfg.SOLVER.AMP.DTYPE = "bf16"  # or "fp16" (with loss scaling)
    ema = cfg.SOLVER.EMA = node()
    ema.ENABLED = False
    ema.DECAY = 0.999
    cfg.SOLVER.LOG_PERIOD = 20  # iterations between two lines of log and metrics
    cfg.SOLVER.CHECKPOINTS_KEPT = 3  # of the periodic ones; 0 keeps all


def _add_augmentation_keys(inputs) -> None:
    """Augmentations for which detectron2 has no config keys."""
    node = type(inputs)
    # Objects cut from other images, pasted so that they hide part of an object: occlusion that is known.
    composition = inputs.COMPOSITION = node()
    composition.ENABLED = False
    composition.PROBABILITY = 0.5  # share of the images that objects are pasted into
    composition.MAX_OBJECTS = 2  # pasted into one image; the number is drawn from 1 to it
    composition.BEHIND = 0.5  # share of the pasted objects that lie behind the objects of the image
    composition.HIDDEN_SHARE = (0.1, 0.6)  # range of the hidden share, of the target or of the object behind it
    composition.SCALE = (0.6, 1.5)  # range of a pasted object's size, the root of its area, relative to its target's
    composition.SOURCE = ""  # name or spec of the data set to cut from; empty: the training sets
    composition.FEATHER = 0.7  # pixels (standard deviation) over which the edge of a pasted object fades
    composition.SHADOW = 0.5  # maximum darkness, 0..1, of the shadow on what lies below; 0 for none
    composition.MIN_VISIBLE = 0.2  # an object of which pasted ones leave a smaller visible share is dropped
    composition.CACHE_MB = 64  # memory for cut-outs, in each data loader worker
    # Large-scale jitter, in place of the resize of the short side: detectron2's ResizeScale and FixedSizeCrop.
    scale = inputs.SCALE_JITTER = node()
    scale.ENABLED = False
    scale.MIN_SCALE = 0.1
    scale.MAX_SCALE = 2.0
    scale.SIZE = (1024, 1024)  # height and width of the result
    # Ranges that an intensity is drawn from; 1 leaves the image. RandomBrightness, RandomContrast, RandomSaturation.
    color = inputs.COLOR_JITTER = node()
    color.ENABLED = False
    color.BRIGHTNESS = (0.8, 1.2)
    color.CONTRAST = (0.8, 1.2)
    color.SATURATION = (0.8, 1.2)


def default_config() -> CfgNode:
    """The default config: the keys of detectron2 that bcnet reads, then bcnet's own."""
    cfg = CfgNode()
    cfg.VERSION = 2  # read by detectron2 only
    cfg.OUTPUT_DIR = "./output"
    cfg.SEED = -1  # negative: a random seed, which is logged
    cfg.CUDNN_BENCHMARK = False
    cfg.VIS_PERIOD = 0  # iterations between two pictures of training images in TensorBoard; 0 or less draws none
    cfg.MODEL = _model_defaults()
    cfg.INPUT = _input_defaults()

    cfg.DATASETS = CfgNode()
    cfg.DATASETS.TRAIN = ()  # names of the catalog, or "coco:annotations.json:image_folder"
    cfg.DATASETS.TEST = ()  # empty: no evaluation after training

    cfg.DATALOADER = CfgNode()
    cfg.DATALOADER.NUM_WORKERS = 4
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True

    cfg.SOLVER = _solver_defaults()

    cfg.TEST = CfgNode()
    cfg.TEST.EVAL_PERIOD = 0  # iterations between two evaluations; 0 or less evaluates after training only
    cfg.TEST.DETECTIONS_PER_IMAGE = 100  # -1 keeps all
    cfg.TEST.AUG = CfgNode()
    cfg.TEST.AUG.ENABLED = False
    cfg.TEST.AUG.MIN_SIZES = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)
    cfg.TEST.AUG.MAX_SIZE = 4000
    cfg.TEST.AUG.FLIP = True

    add_bcnet_config(cfg)
    return cfg


def _model_defaults() -> CfgNode:
    model = CfgNode()
    # Or "BCNetFCOS"; "BoxPrompted", masks in given boxes without a detector; or another of DETECTOR_REGISTRY.
    model.META_ARCHITECTURE = "GeneralizedRCNN"
    model.DEVICE = "cuda"  # falls back to the CPU, with a warning, where there is no GPU
    model.WEIGHTS = ""
    model.MASK_ON = False
    model.PIXEL_MEAN = [103.530, 116.280, 123.675]  # in INPUT.FORMAT order
    model.PIXEL_STD = [1.0, 1.0, 1.0]

    model.BACKBONE = CfgNode()
    # Or "build_bcnet_fcos_resnet_fpn_backbone", with P6 and P7; the two of MODEL.TIMM; another of BACKBONE_REGISTRY.
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.BACKBONE.FREEZE_AT = 2  # stages frozen: 0 none, 1 stem, 2 stem and res2, ...
    model.FPN = CfgNode()
    model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.OUT_CHANNELS = 256
    model.RESNETS = CfgNode()
    model.RESNETS.DEPTH = 50
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # read by detectron2 only
    model.RESNETS.NORM = "FrozenBN"  # or "BN", "SyncBN"
    model.RESNETS.NUM_GROUPS = 1
    model.RESNETS.WIDTH_PER_GROUP = 64
    model.RESNETS.STRIDE_IN_1X1 = True
    model.RESNETS.RES2_OUT_CHANNELS = 256  # read by detectron2 only: 64 for depth 18 and 34, 256 for the others

    model.PROPOSAL_GENERATOR = CfgNode()
    model.PROPOSAL_GENERATOR.NAME = "RPN"  # read by detectron2 only
    model.PROPOSAL_GENERATOR.MIN_SIZE = 0  # proposals have both sides above it, in pixels
    model.ANCHOR_GENERATOR = CfgNode()
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [[0.5, 1.0, 2.0]]
    model.ANCHOR_GENERATOR.OFFSET = 0.0
    rpn = model.RPN = CfgNode()
    rpn.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    rpn.IOU_THRESHOLDS = [0.3, 0.7]
    rpn.BATCH_SIZE_PER_IMAGE = 256
    rpn.POSITIVE_FRACTION = 0.5
    rpn.BBOX_REG_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
    rpn.BBOX_REG_LOSS_WEIGHT = 1.0
    rpn.SMOOTH_L1_BETA = 0.0
    rpn.LOSS_WEIGHT = 1.0
    rpn.PRE_NMS_TOPK_TRAIN = 2000
    rpn.PRE_NMS_TOPK_TEST = 1000
    rpn.POST_NMS_TOPK_TRAIN = 1000
    rpn.POST_NMS_TOPK_TEST = 1000
    rpn.NMS_THRESH = 0.7

    heads = model.ROI_HEADS = CfgNode()
    heads.NAME = "StandardROIHeads"  # read by detectron2 only
    heads.NUM_CLASSES = 80
    heads.IN_FEATURES = ["p2", "p3", "p4", "p5"]  # of the box and mask heads; FCOS pools from FCOS.IN_FEATURES
    heads.IOU_THRESHOLDS = [0.5]
    heads.BATCH_SIZE_PER_IMAGE = 512
    heads.POSITIVE_FRACTION = 0.25
    heads.SCORE_THRESH_TEST = 0.05
    heads.NMS_THRESH_TEST = 0.5
    heads.PROPOSAL_APPEND_GT = True
    box = model.ROI_BOX_HEAD = CfgNode()
    box.NAME = "FastRCNNConvFCHead"  # read by detectron2 only
    box.NUM_FC = 2
    box.FC_DIM = 1024
    box.POOLER_RESOLUTION = 7
    box.POOLER_SAMPLING_RATIO = 0
    box.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
    box.BBOX_REG_LOSS_WEIGHT = 1.0
    box.SMOOTH_L1_BETA = 0.0
    box.CLS_AGNOSTIC_BBOX_REG = False
    mask = model.ROI_MASK_HEAD = CfgNode()
    # Or "SideBranchMaskHead", "PlainMaskHead" (alias "MaskRCNNConvUpsampleHead", detectron2's own in the plugin), or
    # another of MASK_HEAD_REGISTRY.
    mask.NAME = "BilayerMaskHead"
    # Convolutions of each layer (bilayer), of the shared layer (side branch; the visible one has one more), of the head
    # (plain).
    mask.NUM_CONV = 4
    mask.CONV_DIM = 256
    mask.POOLER_RESOLUTION = 14
    mask.POOLER_SAMPLING_RATIO = 0
    mask.CLS_AGNOSTIC_MASK = True
    return model


def _input_defaults() -> CfgNode:
    inputs = CfgNode()
    inputs.MIN_SIZE_TRAIN = (800,)  # 0 keeps the image's size
    inputs.MIN_SIZE_TRAIN_SAMPLING = "choice"  # or "range"
    inputs.MAX_SIZE_TRAIN = 1333
    inputs.MIN_SIZE_TEST = 800  # 0 keeps the image's size
    inputs.MAX_SIZE_TEST = 1333
    inputs.RANDOM_FLIP = "horizontal"  # or "vertical", "none"
    inputs.CROP = CfgNode()
    inputs.CROP.ENABLED = False  # crop the image before it is resized
    # "relative": SIZE are shares of height and width; "relative_range": shares drawn from SIZE to 1; "absolute": SIZE
    # is height and width in pixels; "absolute_range": both are drawn between the two numbers of SIZE.
    inputs.CROP.TYPE = "relative_range"
    inputs.CROP.SIZE = [0.9, 0.9]
    inputs.FORMAT = "BGR"  # or "RGB"
    inputs.MASK_FORMAT = "bitmask"  # read by detectron2 only; both hosts read polygons and RLE
    return inputs


def _solver_defaults() -> CfgNode:
    solver = CfgNode()
    solver.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # or "WarmupCosineLR"
    solver.MAX_ITER = 40000
    solver.BASE_LR = 0.001
    solver.BASE_LR_END = 0.0  # of the cosine schedule
    solver.MOMENTUM = 0.9
    solver.NESTEROV = False
    solver.WEIGHT_DECAY = 0.0001
    solver.WEIGHT_DECAY_NORM = 0.0
    solver.GAMMA = 0.1
    solver.STEPS = (30000,)
    solver.WARMUP_FACTOR = 1.0 / 1000
    solver.WARMUP_ITERS = 1000
    solver.IMS_PER_BATCH = 16  # over all processes
    solver.CHECKPOINT_PERIOD = 5000  # 0 writes checkpoints only before evaluations and at the end
    solver.CLIP_GRADIENTS = CfgNode()
    solver.CLIP_GRADIENTS.ENABLED = False
    solver.CLIP_GRADIENTS.CLIP_TYPE = "value"  # or "norm" of each parameter, "full_model" norm
    solver.CLIP_GRADIENTS.CLIP_VALUE = 1.0
    solver.CLIP_GRADIENTS.NORM_TYPE = 2.0
    solver.AMP = CfgNode()
    solver.AMP.ENABLED = False
    return solver
