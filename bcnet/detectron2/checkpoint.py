"""detectron2 checkpointer that also loads bcnet's and the published code's checkpoints; weights of the mask head."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from bcnet.checkpoint import local_path, names, read_checkpoint, to_bcnet, to_detectron2
from bcnet.checkpoint.load import component_dialect, fit_weights
from bcnet.checkpoint.packaged import is_packaged_model
from bcnet.modeling.checkpoint_adapter import MASK_HEAD
from bcnet.modeling.mask_heads import adopt_plain_head

logger = logging.getLogger(__name__)

_OWN_URLS = ("timm://", "package://", "hf://")  # which detectron2's path manager does not know


class BCNetCheckpointer(DetectionCheckpointer):
    """`DetectionCheckpointer` that also loads models of bcnet's own trainer and of the published BCNet code.

    Their tensors are renamed to detectron2's names; only the model is loaded from such a file. ImageNet weights of a
    timm backbone are loaded as in bcnet's own trainer, and so are ``.safetensors`` files, the names of packaged models
    and the URLs ``timm://``, ``package://`` and ``hf://``. Other files, and all writing, are left to the parent class.
    """

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the parent's.

        Raises:
            ValueError: ``torchvision://`` weights, which detectron2 has no reader of; a classifier that is not that of
                the model's timm backbone.
            FileNotFoundError, ImportError, OSError: as `bcnet.checkpoint.local_path`.
        """
        if path and path.startswith("torchvision://"):
            raise ValueError(
                f"{path} is read by bcnet's own trainer alone; convert it: bcnet weights convert --input {path} "
                "--output plugin.pth --to detectron2"
            )
        if path and (is_packaged_model(path) or path.startswith(_OWN_URLS)):
            path = local_path(path)
        return super().load(path, *args, **kwargs)

    def _load_file(self, filename: str) -> dict:
        content = read_checkpoint(filename) if filename.endswith(".safetensors") else super()._load_file(filename)
        state = content["model"]
        if component_dialect(self.model, state) is not None:
            return {"model": fit_weights(self.model, content, filename, strict=False)[1]}
        try:
            dialect = names.recognise(state)
        except ValueError:  # not a dialect of bcnet: left to the parent
            return content
        if dialect in (names.BCNET, names.PUBLISHED):
            return {"model": self._with_own_mask_head(to_detectron2(to_bcnet(state).state))}
        return content

    def _with_own_mask_head(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The names of a box-prompted model's mask head, which may start either detector, as this model has them."""
        of_rcnn = "roi_heads.mask_head."
        if hasattr(self.model, "roi_heads"):
            return state
        return {f"mask_head.{k.removeprefix(of_rcnn)}" if k.startswith(of_rcnn) else k: v for k, v in state.items()}


def adopt_weights(
    head: nn.Module,
    state: dict[str, Tensor],
    prefix: str,
    _metadata: object,
    _strict: bool,
    _missing: list[str],
    unexpected: list[str],
    _errors: list[str],
) -> None:
    """Hook of a mask head's `load_state_dict`, whatever checkpointer calls it.

    The mask head of detectron2's Mask R-CNN initialises the plain head, and the visible mask of the others
    (`adopt_plain_head`), as in bcnet's own trainer.

    Raises:
        ValueError: the weights have names of bcnet's own models or of the published code; `DetectionCheckpointer`
            would leave the model random.
    """
    refuse_other_names([*state, *unexpected])
    own = head.state_dict()
    plain = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if "mask_fcn1.weight" not in plain:
        return
    place = "roi_heads.mask_head."
    conversion = to_bcnet({place + key: tensor for key, tensor in plain.items()}, dialect=names.DETECTRON2)
    adopt_plain_head(conversion, dict.fromkeys(MASK_HEAD + key for key in own))  # pyright: ignore[reportArgumentType]
    for key, tensor in conversion.state.items():
        name, source = key.removeprefix(MASK_HEAD), conversion.sources[key].removeprefix(place)
        del state[prefix + source]
        if name in own and own[name].shape == tensor.shape:
            state[prefix + name] = tensor
        else:
            logger.warning("%s%s of shape %s does not fit the mask head", prefix, source, tuple(tensor.shape))
    logger.info("The mask head of detectron2's Mask R-CNN initialises %s", type(head).__name__)


def refuse_other_names(keys: Iterable[str]) -> None:
    """
    Raises:
        ValueError: among the keys are names of bcnet's own models or of the published code.
    """
    for key in keys:
        if "mask_branch." in key or "backbone.resnet." in key or ".boundary_fcn1." in key:
            whose = "the published BCNet code" if ".boundary_fcn1." in key else "bcnet's own models"
            raise ValueError(
                f"the weights have the names of {whose} ({key}), which DetectionCheckpointer would not load: use "
                "bcnet.detectron2.BCNetCheckpointer, or convert the file: bcnet weights convert --input FILE --output "
                "plugin.pth --to detectron2"
            )
