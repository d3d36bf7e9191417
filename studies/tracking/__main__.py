#!/usr/bin/env python
"""Identity switches on rendered clips: ByteTrack alone, and with the tracks that others hide kept.

    python -m studies.tracking --clips 60 --seed 1 --output scores/tracking_study/results.json
    python -m studies.tracking --clips 20 --seed 1 --weights output/quick/model_final.pth

Without ``--weights`` the detections are simulated from the exact truth, with noise (`studies.tracking.simulation`).
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from tqdm import tqdm

from bcnet.data.synthetic import SceneConfig, SceneObject
from bcnet.data.synthetic.motion import clip_truth, render_clip
from bcnet.files import write_json
from bcnet.prediction.loading import load_predictor
from bcnet.prediction.predictor import Predictor
from bcnet.structures import Detections
from bcnet.tracking import InstanceTracker
from studies.tracking.measures import ClipMeasures, summary
from studies.tracking.simulation import KNOWLEDGE, Noise, simulated

RATE = 25.0  # frames per second
NEW_TRACK_SCORE, LOWEST_SCORE = 0.5, 0.1
SPLIT = "tracking"
PATIENCE = {"ByteTrack alone": 0.0, "hidden tracks kept": 4.0}  # seconds that hidden tracks are kept
Frames = list[tuple[list[SceneObject], Detections]]


def scene_config() -> SceneConfig:
    """Large objects in front of small ones, of two classes, so that some vanish entirely."""
    return SceneConfig.preset("easy", min_objects=4, max_objects=6, object_size=(0.15, 0.65), classes_per_scene=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--frames", type=int, default=75, help="of each clip (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", help="a model that detects instead of the simulation")
    parser.add_argument("--output", help="json file for the figures")
    arguments = parser.parse_args()
    variants = KNOWLEDGE if arguments.weights is None else ("model",)
    counts = {(name, label): Counter() for name in variants for label in PATIENCE}
    model = None if arguments.weights is None else load_predictor(None, arguments.weights)
    for index in tqdm(range(arguments.clips), unit="clip"):
        for key, frames in detected_clip(arguments.seed, index, arguments.frames, model).items():
            for label, hidden_patience in PATIENCE.items():
                counts[key, label] += tracked(frames, hidden_patience)
    results = {f"{name}, {label}": summary(total) for (name, label), total in counts.items()}
    for name, figures in results.items():
        print(name, figures)
    if arguments.output:
        write_json(arguments.output, {**vars(arguments), "noise": vars(Noise()), "results": results}, indent=1)


def detected_clip(seed: int, index: int, frames: int, model: Predictor | None) -> dict[str, Frames]:
    """The objects and detections of each frame of a clip, by what the detections know; or those of a model."""
    config, arguments = scene_config(), (seed, index, frames, SPLIT)
    if model is not None:
        by_model = [(scene.objects, _predicted(model, scene.image)) for scene in render_clip(config, *arguments)]
        return {"model": by_model}
    truth = list(clip_truth(config, *arguments))
    found: dict[str, Frames] = {}
    for knowledge in KNOWLEDGE:
        rng = np.random.default_rng([seed, index])  # the same draws for each
        found[knowledge] = [
            (objects, simulated(objects, config.image_size, knowledge, Noise(), rng)) for objects in truth
        ]
    return found


def _predicted(model: Predictor, image: np.ndarray) -> Detections:
    return model.predict(image, "RGB", with_occluder=True, score_threshold=LOWEST_SCORE)


def tracked(frames: Frames, hidden_patience: float) -> Counter[str]:
    """The sums of a clip's measures."""
    tracker = InstanceTracker(frame_rate=RATE, new_track_score=NEW_TRACK_SCORE, hidden_patience=hidden_patience)
    measures = ClipMeasures()
    for objects, detections in frames:
        measures.add(objects, tracker.update(detections))
    return measures.counts()


if __name__ == "__main__":
    main()
