"""What flows between the parts: ground truth in, detections out."""

from bcnet.structures.detections import Detections
from bcnet.structures.paste import paste_maps
from bcnet.structures.targets import InstanceMasks, Targets

__all__ = ["Detections", "InstanceMasks", "Targets", "paste_maps"]
