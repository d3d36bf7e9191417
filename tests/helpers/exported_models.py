"""Exported small detectors, and images to compare them with eager on."""

from __future__ import annotations

import numpy as np
from PIL import Image
from small_models import finding_detector

from bcnet.export import export_model
from bcnet.prediction import Predictor

NAMES = ("cup", "plate", "fork")


def small_predictor(detector: str, **overrides) -> Predictor:
    return Predictor.from_config(*finding_detector(detector, **overrides), NAMES).eval()


def exported(detector: str, path, format: str = "onnx", *, size: int | None = None, **options) -> Predictor:
    """Writes a small detector, and returns its predictor."""
    predictor = small_predictor(detector)
    export_model(predictor, format, path, size=size, **options)
    return predictor


def write_images(folder, count: int = 20) -> list[str]:
    """Images with a few plain objects, of many shapes; two are smaller than the models' input, one is a line."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(count):
        height, width = ((48, 64), (90, 70), (20, 130), (128, 64), (33, 35))[index % 5]
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for _ in range(3):
            y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
            pixels[y : y + rng.integers(8, 40), x : x + rng.integers(8, 40)] = rng.integers(100, 255, 3)
        files.append(str(folder / f"{index:02d}.png"))
        Image.fromarray(pixels).save(files[-1])
    return files
