"""Export of models to ONNX, OpenVINO and torch.export, and prediction with the files, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bcnet.lazy_import import lazy_attributes

if TYPE_CHECKING:
    from bcnet.export.check import check_export
    from bcnet.export.formats import export_model
    from bcnet.export.runtime import ExportedPredictor

__all__ = ["ExportedPredictor", "check_export", "export_model"]

__getattr__ = lazy_attributes(
    __name__, {"ExportedPredictor": "runtime", "check_export": "check", "export_model": "formats"}
)
