"""Average precision equals pycocotools', of boxes and masks, and boundary AP."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bcnet.evaluation import GroundTruth, average_precision

HEIGHT, WIDTH = 120, 160


def rle_text(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rectangle(x, y, w, h):
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def random_scene(seed, images=12):
    """Polygons, RLEs and crowds in some images, none in others; results are shifted copies and noise."""
    rng = np.random.default_rng(seed)
    category_ids = [3, 7, 20, 90]
    content = {
        "images": [{"id": 10 + 3 * i, "height": HEIGHT, "width": WIDTH} for i in range(images)],
        "categories": [{"id": c, "name": f"class{c}"} for c in category_ids],
        "annotations": [],
    }
    results = []
    for image in content["images"]:
        # A fifth of the images is empty, some of these with a detection.
        count = 0 if rng.random() < 0.2 else int(rng.integers(1, 7))
        for _ in range(count):
            w, h = (int(v) for v in rng.integers(4, 110, 2))
            x, y = int(rng.integers(0, WIDTH - 4)), int(rng.integers(0, HEIGHT - 4))
            w, h = min(w, WIDTH - x), min(h, HEIGHT - y)
            crowd = rng.random() < 0.15
            mask = rectangle(x, y, w, h)
            if crowd:
                column_major = mask.flatten(order="F")
                edges = np.flatnonzero(np.diff(column_major)) + 1
                counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
                counts = [0, *counts] if column_major[0] else counts
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
            else:
                segmentation = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice(category_ids[:3])),  # the last class has no ground truth
                    "bbox": [x, y, w, h],
                    "area": float(mask.sum()),
                    "iscrowd": int(crowd),
                    "segmentation": segmentation,
                }
            )
            for _ in range(int(rng.integers(0, 3))):
                shifted = np.roll(mask, tuple(rng.integers(-6, 7, 2)), (0, 1))
                results.append((image["id"], content["annotations"][-1]["category_id"], shifted))
        if rng.random() < 0.5:
            results.append((image["id"], int(rng.choice(category_ids)), rectangle(5, 5, 30, 20)))
    scored = []
    for image_id, category_id, mask in results:
        rle = rle_text(mask)
        box = coco_mask.toBbox({**rle, "counts": rle["counts"].encode()}).tolist()
        # Scores of one decimal, so that many are equal.
        score = round(float(rng.random()), 1)
        scored.append(
            {"image_id": image_id, "category_id": category_id, "bbox": box, "segmentation": rle, "score": score}
        )
    return content, scored


def pycocotools_metrics(content, results, iou_type):
    dropped = "segmentation" if iou_type == "bbox" else "bbox"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        detected = truth.loadRes([{k: v for k, v in r.items() if k != dropped} for r in copy.deepcopy(results)])
        evaluation = COCOeval(truth, detected, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = dict(zip(["AP", "AP50", "AP75", "APs", "APm", "APl"], evaluation.stats[:6], strict=True))
    for index, category in enumerate(sorted(content["categories"], key=lambda c: c["id"])):
        precision = evaluation.eval["precision"][:, :, index, 0, -1]
        defined = precision[precision > -1]
        metrics[f"AP-{category['name']}"] = defined.mean() if defined.size else -1
    return metrics


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed, iou_type):
    content, results = random_scene(seed)
    expected = pycocotools_metrics(content, results, iou_type)
    actual = average_precision(GroundTruth.from_dict(content), results, iou_type)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if value == -1:
            assert math.isnan(actual[name]), name
        else:
            assert actual[name] == pytest.approx(100 * value, abs=1e-6), name


def test_classes_keep_their_own_order():
    content, results = random_scene(0)
    by_id = average_precision(GroundTruth.from_dict(content), results)
    shuffled = GroundTruth.from_dict(content, category_ids=[20, 90, 3, 7], class_names=["c20", "c90", "c3", "c7"])
    metrics = average_precision(shuffled, results)
    for category_id in (3, 7, 20):
        assert metrics[f"AP-c{category_id}"] == by_id[f"AP-class{category_id}"]
    assert math.isnan(metrics["AP-c90"])


def test_annotation_ids_need_not_be_good_ones():
    content, results = random_scene(1)
    expected = average_precision(GroundTruth.from_dict(content), results)
    for number, annotation in enumerate(reversed(content["annotations"])):
        annotation["id"] = float(number)  # 0 is what the evaluators take for "not matched"
        del annotation["area"]
        del annotation["bbox"]
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    for image in content["images"]:
        image["id"] = f"name-{image['id']}"
    for entry in content["annotations"] + results:
        entry["image_id"] = f"name-{entry['image_id']}"
    actual = average_precision(GroundTruth.from_dict(content), results)
    assert actual == pytest.approx(expected, nan_ok=True)


def test_boundary_ap_is_lower_for_a_blurred_outline():
    mask = rectangle(20, 20, 100, 80)
    content = {
        "images": [{"id": 1, "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle_text(mask)}],
    }
    truth = GroundTruth.from_dict(content)

    def ap(detected, iou_type):
        result = {"image_id": 1, "category_id": 1, "score": 0.9, "segmentation": rle_text(detected)}
        return average_precision(truth, [result], iou_type)["AP"]

    assert ap(mask, "boundary") == pytest.approx(100)
    shifted = rectangle(22, 20, 100, 80)
    # 98 of 102 columns agree: IoU 0.96, right at all ten thresholds. The band is 4 pixels (2 % of the
    # diagonal of 200): it has 1376 pixels, of which 1072 agree, IoU 1072 / 1680 = 0.638, right at three.
    assert ap(shifted, "segm") == pytest.approx(100)
    assert ap(shifted, "boundary") == pytest.approx(30)
