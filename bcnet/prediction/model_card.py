"""Model cards (README.md with a YAML header, as the Hugging Face Hub shows them), from a config and a training run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from bcnet.checkpoint.packaged import is_packaged_model
from bcnet.config import CfgNode
from bcnet.evaluation.report import format_report, markdown_table
from bcnet.files import read_json
from bcnet.modeling.describe import describe_config
from bcnet.prediction.datasets import folder_name

TAGS = ("instance-segmentation", "occlusion", "depth-order")
_RUNS, _INFERENCE, _METRICS = "runs.jsonl", "inference", "metrics.json"


def model_card(
    cfg: CfgNode, *, source: str, class_names: Sequence[str] = (), run: str | None = None, license: str | None = None
) -> str:
    """The card of a model: how to use it, what it is, what was measured, how it was trained, its licence.

    Args:
        cfg: config of the model.
        source: what `bcnet.load` takes to load it.
        class_names: of the classes 0..K-1; may be empty.
        run: OUTPUT_DIR of the training, whose ``runs.jsonl`` and ``inference/*/metrics.json`` are quoted.
        license: identifier of the weights' licence, such as "mit" or "cc-by-4.0".

    Raises:
        FileNotFoundError: `run` has none of a run's files.
        ValueError: one of them is not JSON; names it.
    """
    if run is not None and not _is_run(run):
        raise FileNotFoundError(f"{run!r} is not the OUTPUT_DIR of a training: it has neither {_RUNS} nor {_INFERENCE}")
    header: dict[str, Any] = {
        "library_name": "bcnet",
        "pipeline_tag": "image-segmentation",
        "tags": [*TAGS, *(["amodal-segmentation"] if cfg.MODEL.BILAYER.AMODAL else [])],
    }
    if license:
        header["license"] = license
    described = describe_config(cfg)
    name = os.path.basename(os.path.abspath(source)) if "://" not in source else source.rpartition("/")[2]
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False).strip()}\n---",
        f"# {name}",
        f"Occlusion-aware instance segmentation: {described['detector']}, {described['backbone']}, mask head: "
        f"{described['mask head']}. Made with bcnet; the mask head is that of BCNet (Ke, Tai, Tang, CVPR 2021).",
        _use(source, detects=bool(cfg.MODEL.META_ARCHITECTURE != "BoxPrompted")),
        _model(described, class_names),
        _results(cfg, run),
        _training(run),
        "## Licence\n\n" + (f"Weights: {license}." if license else "The authors of the weights have named no licence."),
    ]
    return "\n\n".join(parts) + "\n"


def run_folder_of(weights: str | None) -> str | None:
    """The OUTPUT_DIR that weights lie in; None if they lie elsewhere."""
    if not weights or "://" in weights or is_packaged_model(weights):
        return None
    folder = os.path.dirname(os.path.expanduser(weights)) or "."
    return folder if _is_run(folder) else None


def _is_run(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name)) for name in (_RUNS, _INFERENCE))


def _use(source: str, *, detects: bool) -> str:
    call = (
        'found = model("photo.jpg", with_occluder=True, score_threshold=0.5)'
        if detects
        else 'found = model.segment("photo.jpg", boxes)     # [D, 4], xyxy in pixels, of any detector'
    )
    command = "predict" if detects else "segment"
    inputs = "--input photos/" if detects else "--boxes boxes.json --images photos/"
    return f"""## Use

```python
import bcnet

model = bcnet.load("{source}")
{call}
print(found.summary())
found.save("found.jpg")
```

```bash
bcnet {command} --weights {source} {inputs} --output found.json
```"""


def _model(described: Mapping[str, Any], class_names: Sequence[str]) -> str:
    values = {key: ", ".join(value) if isinstance(value, list) else str(value) for key, value in described.items()}
    table = markdown_table([["", ""], *([key, value or "none"] for key, value in values.items())])
    classes = "Classes: " + ", ".join(class_names) + "." if class_names else "The classes have no names."
    return f"## Model\n\n{table}\n\n{classes}"


def _results(cfg: CfgNode, run: str | None) -> str:
    parent = os.path.join(run, _INFERENCE) if run is not None else ""
    folders = sorted(os.listdir(parent)) if os.path.isdir(parent) else []
    names = {folder_name(name): name for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)}
    tables = [
        f"`{names.get(folder, folder)}`:\n\n```text\n{format_report(read_json(path))}\n```"
        for folder in folders
        if os.path.isfile(path := os.path.join(parent, folder, _METRICS))
    ]
    return "## Results\n\n" + ("\n\n".join(tables) or "No results came with the weights.")


def _training(run: str | None) -> str:
    path = os.path.join(run, _RUNS) if run is not None else ""
    if not os.path.isfile(path):
        return "## Training\n\nNo record of the training came with the weights."
    with open(path, encoding="utf-8") as file:
        starts = [_parsed(line, path) for line in file if line.strip()]
    commands = "\n".join(str(start.get("command", "")) for start in starts)
    last = starts[-1] if starts else {}
    facts = {
        "seed": last.get("seed"),
        "processes": last.get("processes"),
        "versions": ", ".join(f"{name} {version}" for name, version in (last.get("versions") or {}).items()),
        "commit": (last.get("git") or {}).get("commit"),
        "GPUs": ", ".join((last.get("hardware") or {}).get("gpus") or ()) or "none",
    }
    table = markdown_table([["", ""], *([key, str(value)] for key, value in facts.items() if value not in (None, ""))])
    return f"## Training\n\n```bash\n{commands}\n```\n\n{table}\n\nEvery key of the config is in `config.json`."


def _parsed(line: str, path: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not JSON: {line[:80]!r}") from error
