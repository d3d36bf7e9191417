"""Names and category ids of COCO's 80 classes, for files that do not list them."""

from __future__ import annotations

_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_NAMES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, "
    "backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, "
    "baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, "
    "banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, "
    "bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"
)

# Name by category id, in ascending order of id: classes 0..79.
COCO_CLASSES = dict(zip((i for i in range(1, 91) if i not in _UNUSED_IDS), _NAMES.split(", "), strict=True))
