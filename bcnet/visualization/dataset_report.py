"""HTML report of checked data sets: one file with tables, thumbnails of suspicious entries, and config keys."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from bcnet.data.images import open_image
from bcnet.data.inspection.dataset_check import CheckedDataset, DatasetCheck, class_counts, count_lines
from bcnet.data.inspection.shared_images import SharedImage
from bcnet.data.inspection.suspicions import Example, Suspicion
from bcnet.data.records import ImageRecord
from bcnet.data.source_masks import has_mask, visible_rle
from bcnet.files import write_text
from bcnet.visualization import style
from bcnet.words import counted

_SIDE = 180  # of a thumbnail, pixels
_CONTEXT = 0.35  # of the box's sides around an object
_SHARED = 24  # pairs of shared images that are shown
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
.bar{background:#0072b2;height:.8em;display:inline-block}figure{display:inline-block;margin:.3em .6em .3em 0}
figcaption{font-size:.8em;max-width:180px;overflow-wrap:anywhere}.error{color:#b00000}pre{background:#f2f2f2;padding:.8em}"""


def write_dataset_report(check: DatasetCheck, path: str) -> None:
    """Writes the report as one HTML file, which needs no other file and no network.

    Raises:
        OSError: the file cannot be written.
    """
    parts = [_dataset(dataset) for dataset in check.datasets]
    parts += [_shared(names, images) for names, images in check.shared.items()]
    parts += [f"<p>{escape(remark)}</p>" for remark in check.remarks]
    parts.append(f"<h2>To start with</h2><pre>{escape(chr(10).join(check.config))}</pre>")
    title = escape(", ".join(dataset.name for dataset in check.datasets))
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    write_text(f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n", path)


def _dataset(dataset: CheckedDataset) -> str:
    parts = [f"<h2>{escape(dataset.name)}</h2>", _table(count_lines(dataset))]
    classes = class_counts(dataset)
    most = max((count for _, count in classes), default=0)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{count}</td>"
        f'<td><span class="bar" style="width:{20 * count / max(most, 1):.2f}em"></span></td></tr>'
        for name, count in classes
    )
    parts.append(
        f"<h3>{counted(len(classes), 'class', 'classes')}</h3><table>{rows}</table><h3>Suspicious entries</h3>"
    )
    parts += [_suspicion(suspicion) for suspicion in dataset.suspicions] or ["<p>none</p>"]
    return "".join(parts)


def _table(rows: Iterable[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _suspicion(suspicion: Suspicion) -> str:
    text = f"<b>{escape(suspicion.severity)}</b>: {escape(suspicion.title)}"
    message = f"<br><small>{escape(suspicion.message)}</small>" if suspicion.message else ""
    figures = "".join(map(_example, suspicion.examples))
    return f'<p class="{escape(suspicion.severity)}">{text}{message}</p><div>{figures}</div>'


def _example(example: Example) -> str:
    picture = None if example.record is None else thumbnail(example.record, example.position)
    return _figure(picture, example.label)


def _figure(picture: np.ndarray | None, caption: str) -> str:
    image = ""
    if picture is not None:
        encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode("ascii")}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def thumbnail(record: ImageRecord, position: int | None) -> np.ndarray | None:
    """A picture of an image, or of one of its instances with box and outline: uint8 [h, w, 3] RGB.

    None if the image cannot be read or is of another size than the record says.
    """
    try:
        pixels = np.array(open_image(record.file_name))
    except ValueError:
        return None
    if position is None:
        return _fitted(pixels)
    if pixels.shape[:2] != (record.height, record.width):
        return None
    instance = record.instances[position]
    width = style.line_width(pixels.shape[:2])
    x, y, w, h = instance.bbox
    color = style.instance_color(0)
    cv2.rectangle(pixels, (round(x), round(y)), (round(x + w), round(y + h)), style.instance_color(1), width)
    if has_mask(instance):
        mask = coco_mask.decode(visible_rle(record, instance))
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(pixels, contours, -1, color, width, cv2.LINE_AA)
    margin = max(_CONTEXT * max(w, h), _SIDE / 8)
    left, top = max(int(x - margin), 0), max(int(y - margin), 0)
    window = pixels[top : max(int(y + h + margin), top + 1), left : max(int(x + w + margin), left + 1)]
    return _fitted(window) if window.size else _fitted(pixels)


def _fitted(pixels: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return style.resized(np.ascontiguousarray(pixels), width, height)


def _shared(names: tuple[str, str], images: Sequence[SharedImage]) -> str:
    first, second = map(escape, names)
    figures = []
    for image in images[:_SHARED]:
        relation = "the same file" if image.identical else "looks alike"
        for record in (image.first, image.second):
            figures.append(_figure(thumbnail(record, None), f"{record.file_name} ({relation})"))
    more = f"<p>and {len(images) - _SHARED} more</p>" if len(images) > _SHARED else ""
    return f"<h2>In {first} and {second}: {counted(len(images), 'image')}</h2>{''.join(figures)}{more}"
