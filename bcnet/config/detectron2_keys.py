"""Compatibility with detectron2's config keys: keys that bcnet lacks, and the values that match its behaviour.

detectron2's YAML files, and the ``config.yaml`` that its trainer writes, have keys of models and options that bcnet
lacks. A key whose value matches bcnet's behaviour is accepted and dropped; any other value is rejected.
"""

from __future__ import annotations

# Sections and keys of components that bcnet does not build: their values have no effect.
_WITHOUT_EFFECT = (
    "GLOBAL.",
    "MODEL.RETINANET.",
    "MODEL.PANOPTIC_FPN.",
    "MODEL.SEM_SEG_HEAD.",
    "MODEL.ROI_KEYPOINT_HEAD.",
    "MODEL.ROI_BOX_CASCADE_HEAD.",
    "MODEL.ANCHOR_GENERATOR.ANGLES",
    "MODEL.RESNETS.DEFORM_MODULATED",
    "MODEL.RESNETS.DEFORM_NUM_GROUPS",
    "MODEL.ROI_BOX_HEAD.CONV_DIM",  # of NUM_CONV convolutions, and NUM_CONV is 0
    "MODEL.ROI_BOX_HEAD.FED_LOSS_",
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_",
    "DATALOADER.REPEAT_",
    "SOLVER.NUM_DECAYS",
    "TEST.EXPECTED_RESULTS",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.PRECISE_BN.NUM_ITER",
)

# Options of components that bcnet builds, with the value that matches its behaviour.
_ONLY_VALUE: dict[str, object] = {
    "MODEL.LOAD_PROPOSALS": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.BOUNDARY_THRESH": -1,
    "MODEL.RPN.IOU_LABELS": [0, -1, 1],
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.ROI_HEADS.IOU_LABELS": [0, 1],
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "DATASETS.PROPOSAL_FILES_TRAIN": [],
    "DATASETS.PROPOSAL_FILES_TEST": [],
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.RESCALE_INTERVAL": False,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "SOLVER.BIAS_LR_FACTOR": 1.0,
    "SOLVER.WEIGHT_DECAY_BIAS": None,
    "TEST.PRECISE_BN.ENABLED": False,
    "FLOAT32_PRECISION": "",
}


def accept_detectron2_key(key: str, value: object, source: str) -> bool:
    """Whether a key is one of detectron2's that can be dropped; False for a key unknown to detectron2 too.

    Raises:
        ValueError: the value requests a feature that bcnet lacks.
    """
    if key.startswith(_WITHOUT_EFFECT):
        return True
    if key not in _ONLY_VALUE:
        return False
    only = _ONLY_VALUE[key]
    if (list(value) if isinstance(value, tuple) else value) != only:
        raise ValueError(
            f"{key} is {value!r} in {source}; this is an option of detectron2 that the stand-alone trainer does not "
            f"have, so it must be {only!r} (--host detectron2 has it)"
        )
    return True
