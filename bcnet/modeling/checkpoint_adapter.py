"""What a component says of its tensors in checkpoints of other code: names, and what else loading must know.

A registered backbone, mask head or detector may have an attribute `checkpoint_adapter`; `bcnet.checkpoint` collects
those of the registries. Without one, a component's tensors have the same names everywhere.

A dialect is a set of names, in which one code writes its models. A rule is a pair of templates (ours, theirs)::

    "backbone.resnet.layer{s}.{b}.conv{c}.*", "backbone.bottom_up.res{s+1}.{b}.conv{c}.*"

``{s}`` is a number and ``{s+1}`` the same number plus one, ``*`` one name without dots (weight, running_mean, ...),
``**`` everything that follows. Of several rules the first that matches decides.
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

MASK_HEAD = "mask_branch.head."  # where a detector has its mask head


class CheckpointAdapter:
    """Base of the adapters, which says nothing; a subclass overrides what its component needs.

    Attributes:
        dialects: dialects beyond those above that `rules` knows, e.g. ("timm",). A file is tried in these first.
    """

    dialects: tuple[str, ...] = ()

    def rules(self, dialect: str, keys: Sequence[str]) -> Sequence[Rule]:
        """Rules between the component's names and a dialect's.

        Names are those of the whole model, "backbone.trunk.conv.weight"; of a mask head they begin inside the head, on
        either side (see `mask_head`).

        Args:
            dialect: whose names the other side of the rules are.
            keys: all names of the file or model, ours or the dialect's.
        """
        return ()

    def mask_head(self, dialect: str) -> str | None:
        """Of a detector: what its mask head's names begin with in a dialect; None where the dialect has no masks."""
        return MASK_HEAD

    def adapt(self, conversion: Conversion, own: Mapping[str, Tensor]) -> None:
        """Changes weights under our names so that they fit the model, in place.

        Args:
            conversion: the file's weights under our names.
            own: the model's tensors by name.
        """

    def fault(self, report: LoadReport) -> str | None:
        """Why weights must not be loaded although some of them fit; None where they may."""
        return None

    def warnings(self, model: nn.Module, conversion: Conversion, author: str) -> list[str]:
        """One sentence per setting of the model that contradicts what the weights were trained with.

        Args:
            author: the file's "__author__", by which detectron2's zoo marks its files.
        """
        return []


def adapter_of(component: object) -> CheckpointAdapter:
    """The adapter of a component or its class; the base's where it has none."""
    return getattr(component, "checkpoint_adapter", None) or CheckpointAdapter()
