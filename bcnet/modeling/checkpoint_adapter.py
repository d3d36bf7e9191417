"""Checkpoint adapters: parameter names of a component in checkpoints of other code, and conversion of its weights.

A registered backbone, mask head or detector may have an attribute `checkpoint_adapter`; `bcnet.checkpoint` collects
those of the registries. Without one, a component's tensors have the same names everywhere.

A dialect is the naming scheme of one code base. A rule is a pair of templates (ours, theirs)::

    "backbone.resnet.layer{s}.{b}.conv{c}.*", "backbone.bottom_up.res{s+1}.{b}.conv{c}.*"

``{s}`` is a number and ``{s+1}`` the same number plus one, ``*`` one name without dots (weight, running_mean, ...),
``**`` the rest of the name. The first matching rule applies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from bcnet.checkpoint.convert import Conversion
    from bcnet.checkpoint.report import LoadReport

BCNET, DETECTRON2, PUBLISHED, TORCHVISION = "bcnet", "detectron2", "published", "torchvision"
DETECTRON2_BACKBONE, TORCHVISION_BACKBONE, CAFFE2 = "detectron2_backbone", "torchvision_backbone", "caffe2"

Rule = tuple[str, str]

MASK_HEAD = "mask_branch.head."  # prefix of the mask head in a detector


class CheckpointAdapter:
    """Base of the adapters, with no rules; a subclass overrides what its component needs.

    Attributes:
        dialects: dialects beyond those above that `rules` knows, e.g. ("timm",). A file is tried in these first.
    """

    dialects: tuple[str, ...] = ()

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        """Rules between the component's names and a dialect's.

        Names are those of the whole model, "backbone.trunk.conv.weight"; of a mask head they begin inside the head, on
        either side (see `mask_head`).

        Args:
            dialect: the dialect on the other side of the rules.
            keys: all names of the file or model, ours or the dialect's.
        """
        return ()

    def mask_head(self, dialect: str) -> str | None:
        """Of a detector: the prefix of its mask head's names in a dialect; None if the dialect has no masks."""
        return MASK_HEAD

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        """Changes weights under our names so that they fit the model, in place.

        Args:
            conversion: the file's weights under our names.
            own: the model's tensors by name.
        """

    def fault(self, report: LoadReport) -> str | None:
        """The reason to reject weights although some of them fit; None accepts them."""
        return None

    def warnings(self, model: nn.Module, conversion: Conversion, author: str) -> list[str]:
        """One warning per setting of the model that differs from the training of the weights.

        Args:
            author: the file's "__author__", by which detectron2's zoo marks its files.
        """
        return []


def adapter_of(component: object) -> CheckpointAdapter:
    """The adapter of a component or its class; the base adapter if it has none."""
    return getattr(component, "checkpoint_adapter", None) or CheckpointAdapter()
