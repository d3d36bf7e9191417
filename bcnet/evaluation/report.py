"""Metrics as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

CLASS_PREFIX = "AP-"


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A text table; numbers are right-aligned, floats get two decimals and nan is "-"."""
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
    """`evaluate_results`' dict as text: AP, AP under occlusion, recall, hidden parts and order, and by class."""
    tasks = [name for name in ("bbox", "segm", "boundary", "amodal") if name in metrics]
    overall = [name for name in metrics[tasks[0]] if not name.startswith(CLASS_PREFIX)] if tasks else []
    parts = [format_table(["", *overall], [[task, *(metrics[task][name] for name in overall)] for task in tasks])]
    if "occlusion" in metrics:
        occlusion = metrics["occlusion"]
        columns = ("instances", "AP", "AP50", "AP75")
        rows = [
            [name, f"{100 * level['from']:g}-{100 * level['to']:g} %", *(level[column] for column in columns)]
            for name, level in occlusion["levels"].items()
        ]
        parts.append(
            f"Mask AP by occlusion; hidden = {occlusion['description']}.\n"
            "Compare models within a row; the rows have different instances and the same false detections.\n"
            + format_table(["occlusion", "hidden", *columns], rows)
        )
    parts += [part(metrics[name]) for name, part in _PARTS.items() if name in metrics]
    point = metrics["operating_point"]
    counts = ("true_positives", "false_positives", "false_negatives", "precision", "recall")
    rows = [
        [name, *(metrics[task][key] for task in tasks), *(values[count] for count in counts)]
        for name, key, values in [("(all)", "AP", point["total"])]
        + [(name, f"{CLASS_PREFIX}{name}", values) for name, values in point["classes"].items()]
    ]
    headers = ["class", *(f"{task} AP" for task in tasks), "right", "false", "missed", "precision", "recall"]
    parts.append(
        f"By class; counts of detections that score {point['score_threshold']:g} or more "
        f"at {point['iou_type']} IoU {point['iou_threshold']:g}\n" + format_table(headers, rows)
    )
    return "\n\n".join(parts)


def _format_overlap(overlap: Mapping) -> str:
    title = f"Mask AP on the images with overlapping objects ({overlap['overlap']} of {overlap['threshold']:g} or more)"
    columns = ("images", "AP", "AP50", "AP75")
    return f"{title}\n{format_table(columns, [[overlap[column] for column in columns]])}"


def _format_recall(recall: Mapping) -> str:
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


def _format_hidden_part(hidden: Mapping) -> str:
    columns = ("instances", "found", "iou_found", "iou")
    return "IoU of hidden parts (iou: those not found count 0)\n" + format_table(
        columns, [[hidden[column] for column in columns]]
    )


def _format_order(order: Mapping) -> str:
    columns = (
        *("pairs", "found", "right", "reversed", "undecided"),
        *("accuracy", "edge_recall", "edge_precision", "depth_accuracy"),
    )
    return f"Who lies on top, of pairs with {order['measure']}\n" + format_table(
        columns, [[order[column] for column in columns]]
    )


_PARTS = {
    "overlap": _format_overlap,
    "recall": _format_recall,
    "hidden_part": _format_hidden_part,
    "order": _format_order,
}


def _cell(value: object) -> str:
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
