"""docs/quickstart.ipynb: its cells run from top to bottom, and it is committed without outputs."""

from __future__ import annotations

import ast
import json

from example_commands import ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"
# In place of the values of the cell "parameters", so that it ends within seconds.
SMALL = {
    "scenes": 4,
    "iterations": 2,
    "score_threshold": 0.0,
    "options": [
        *("MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", 2, "SOLVER.STEPS", (), "SOLVER.WARMUP_ITERS", 0),
        *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MIN_SIZE_TEST", 64, "DATALOADER.NUM_WORKERS", 0, "VIS_PERIOD", 0),
        *("TEST.DETECTIONS_PER_IMAGE", 5, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.METRICS", ("bbox", "segm")),
    ],
}


def code_cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, namespace: dict) -> object:
    """Runs a cell; the value of its last line, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), namespace)


def test_every_cell_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    shown = []
    for cell in code_cells():
        shown.append(run_cell("".join(cell["source"]), namespace))
        if "parameters" in cell["metadata"].get("tags", ()):
            assert namespace.keys() >= SMALL.keys()
            namespace |= SMALL
    found = namespace["found"]
    assert len(found) > 0 and found in shown and found._repr_jpeg_()
    assert (tmp_path / "output/quickstart/found.jpg").is_file()
    assert "instances in datasets/quickstart/images/val/000000.png of 192 x 192 pixels" in capsys.readouterr().out


def test_it_has_no_outputs():
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_cells())
