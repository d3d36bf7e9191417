"""Text report of metrics: tables of AP, of each registered metric and by class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bcnet.evaluation.registry import METRIC_REGISTRY

CLASS_PREFIX = "AP-"
AP_METRICS = ("bbox", "segm", "boundary", "amodal")  # rows of the first table


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A text table; numbers are right-aligned, floats get two decimals; nan, and its null in JSON, is "-"."""
    is_text = [bool(rows) and all(isinstance(row[column], str) for row in rows) for column in range(len(headers))]
    cells = [list(headers)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    lines = (
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, is_text, strict=True)
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table for a page; the first line is the header."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_average_precision(metrics: Mapping[str, float], columns: int = 3) -> str:
    """`average_precision`'s dict as two tables: overall and by size, then the classes in several columns."""
    overall = {name: value for name, value in metrics.items() if not name.startswith(CLASS_PREFIX)}
    table = format_table(list(overall), [list(overall.values())])
    classes = [(name[len(CLASS_PREFIX) :], v) for name, v in metrics.items() if name.startswith(CLASS_PREFIX)]
    if not classes:
        return table
    columns = min(columns, len(classes))
    rows = math.ceil(len(classes) / columns)
    classes += [("", "")] * (rows * columns - len(classes))
    lines = [[cell for column in range(columns) for cell in classes[column * rows + row]] for row in range(rows)]
    return table + "\n" + format_table(["class", "AP"] * columns, lines)


def format_report(metrics: Mapping[str, Mapping]) -> str:
    """`evaluate_results`' dict as text: AP, each registered metric, and AP and counts by class."""
    tasks = [name for name in AP_METRICS if name in metrics]
    parts = [_format_ap(metrics, tasks)] if tasks else []
    for name, values in metrics.items():
        if isinstance(values, Mapping) and name not in (*AP_METRICS, "operating_point"):
            report = METRIC_REGISTRY.get(name).report if name in METRIC_REGISTRY else None
            parts.append(report(values) if report else _format_numbers(name, values))
    if "operating_point" in metrics:
        parts.append(_format_by_class(metrics, tasks))
    if metrics.get("results_cut"):
        parts.append(
            f"{metrics['results_cut']} of {metrics['results']} results are ignored: more than "
            f"{metrics['max_detections']} per image and class"
        )
    return "\n\n".join(parts)


def _format_ap(metrics: Mapping[str, Mapping], tasks: Sequence[str]) -> str:
    overall = [name for name in metrics[tasks[0]] if not name.startswith(CLASS_PREFIX)]
    return format_table(["", *overall], [[task, *(metrics[task][name] for name in overall)] for task in tasks])


def _format_by_class(metrics: Mapping[str, Mapping], tasks: Sequence[str]) -> str:
    point = metrics["operating_point"]
    counts = ("true_positives", "false_positives", "false_negatives", "precision", "recall")
    rows = [
        [name, *(metrics[task][key] for task in tasks), *(values[count] for count in counts)]
        for name, key, values in [("(all)", "AP", point["total"])]
        + [(name, f"{CLASS_PREFIX}{name}", values) for name, values in point["classes"].items()]
    ]
    headers = ["class", *(f"{task} AP" for task in tasks), "TP", "FP", "FN", "precision", "recall"]
    return (
        f"By class; counts of detections that score {point['score_threshold']:g} or more "
        f"at {point['iou_type']} IoU {point['iou_threshold']:g}\n" + format_table(headers, rows)
    )


def _format_numbers(name: str, values: Mapping) -> str:
    return f"{name}\n" + format_table(["", "value"], [[key, value] for key, value in flat_metrics(values).items()])


def format_occlusion(occlusion: Mapping) -> str:
    """Of `occlusion_average_precision`."""
    columns = ("instances", "AP", "AP50", "AP75")
    rows = [
        [name, f"{100 * level['from']:g}-{100 * level['to']:g} %", *(level[column] for column in columns)]
        for name, level in occlusion["levels"].items()
    ]
    return (
        f"Mask AP by occlusion; hidden = {occlusion['description']}.\n"
        "Compare models within a row; the rows have different instances and the same false positives.\n"
        + format_table(["occlusion", "hidden", *columns], rows)
    )


def format_overlap(overlap: Mapping) -> str:
    """Of `overlap_average_precision`."""
    title = f"Mask AP on the images with overlapping objects ({overlap['overlap']} of {overlap['threshold']:g} or more)"
    columns = ("images", "AP", "AP50", "AP75")
    return f"{title}\n{format_table(columns, [[overlap[column] for column in columns]])}"


def format_recall(recall: Mapping) -> str:
    """Of `split_recall`."""
    how = "of the published lists" if recall["split_by"] == "lists" else f"by {recall['split_by']}"
    columns = ("instances", "found", "recall")
    rows = [
        [name, *(recall[name][column] for column in columns)]
        for name in ("all", "occluded", "separated")
        if name in recall
    ]
    return (
        f"Recall of objects hidden in part, {how}, at score {recall['score_threshold']:g} and mask IoU "
        f"{recall['iou_threshold']:g}\n" + format_table(["", *columns], rows)
    )


def format_hidden_part(hidden: Mapping) -> str:
    """Of `hidden_part_iou`."""
    columns = ("instances", "found", "iou_found", "iou")
    return "IoU of hidden parts (iou: those not found count 0)\n" + format_table(
        columns, [[hidden[column] for column in columns]]
    )


def format_miou(miou: Mapping) -> str:
    """Of `amodal_miou`."""
    columns = ("instances", "found", "full", "hidden_instances", "hidden_found", "hidden")
    headers = ("instances", "found", "mIoU full", "with a hidden part", "found", "mIoU hidden")
    return "mIoU of whole objects and of hidden parts, of those found\n" + format_table(
        headers, [[miou[column] for column in columns]]
    )


def format_olac(olac: Mapping) -> str:
    """Of `olac_average_precision`."""
    columns = ("images", "AP", "AP50", "AP75")
    rows = [[name, *(level[column] for column in columns)] for name, level in olac["levels"].items()]
    unlabelled = f"; {olac['unlabelled']} images without a label" if olac["unlabelled"] else ""
    return f"{olac['iou_type']} AP by COCO-OLAC's occlusion level of the image{unlabelled}\n" + format_table(
        ["level", *columns], rows
    )


def format_order(order: Mapping) -> str:
    """Of `occlusion_order_accuracy`."""
    columns = (
        *("pairs", "found", "right", "reversed", "undecided", "mutual"),
        *("edge_recall", "edge_precision", "depth_accuracy"),
    )
    figures = ("accuracy", "precision", "recall", "f1")
    rows = [
        [name.replace("_", " "), *(values[k] for k in figures), *(values["per_image"][k] for k in figures[1:])]
        for name, values in {"model": order, **order["baselines"]}.items()
    ]
    headers = ["", *figures, *(f"image {name}" for name in figures[1:])]
    return (
        f"Occlusion order, of pairs with {order['measure']}\n"
        + format_table(columns, [[order[column] for column in columns]])
        + f"\nDirected pairs, together and as means over {order['per_image']['images']} images; baselines below\n"
        + format_table(headers, rows)
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def flat_metrics(metrics: Mapping, prefix: str = "") -> dict[str, float]:
    """The numbers of nested metrics by keys such as "occlusion/levels/heavy/AP", for logs and plots.

    The counts per class of ``operating_point`` are left out.
    """
    flat = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            if name != "classes":
                flat.update(flat_metrics(value, f"{prefix}{name}/"))
        elif isinstance(value, (int, float)):
            flat[prefix + name] = value
    return flat
