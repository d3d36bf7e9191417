"""Saving of models to folders and to the Hugging Face Hub: `save_pretrained`, `push_to_hub`."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import bcnet
from bcnet.checkpoint import half_precision, write_weights
from bcnet.checkpoint.hub import check_repo_id, upload_folder
from bcnet.checkpoint.model_folder import CARD_NAME, WEIGHTS_NAME, write_config_json
from bcnet.config import get_cfg
from bcnet.files import write_text
from bcnet.prediction.model_card import model_card

if TYPE_CHECKING:
    from bcnet.prediction.predictor import Predictor

PRECISIONS = ("fp32", "fp16")


def save_pretrained(
    predictor: Predictor,
    folder: str | os.PathLike,
    *,
    run: str | os.PathLike | None = None,
    license: str | None = None,
    precision: str = "fp32",
    repo_id: str | None = None,
    replace_card: bool = False,
) -> None:
    """See `Predictor.save_pretrained`.

    Args:
        repo_id: where the folder goes, for the commands on the card; None names the folder.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"weights are saved in {' or '.join(map(repr, PRECISIONS))}, got {precision!r}")
    if predictor.cfg is None:
        raise ValueError("only a model with a config can be saved: make it with bcnet.load or Predictor.from_config")
    folder = os.path.expanduser(os.fspath(folder))
    # Where the model is computed is for whoever loads it to say.
    cfg = predictor.cfg.with_values({"MODEL.DEVICE": get_cfg().MODEL.DEVICE})
    card = model_card(
        cfg,
        source=f"hf://{repo_id}" if repo_id else folder,
        class_names=predictor.class_names,
        run=None if run is None else os.path.expanduser(os.fspath(run)),
        license=license,
    )
    state = predictor.detector.state_dict()
    write_weights(half_precision(state) if precision == "fp16" else state, os.path.join(folder, WEIGHTS_NAME))
    write_config_json(folder, cfg.dump(), predictor.class_names, bcnet.__version__)
    path = os.path.join(folder, CARD_NAME)
    if replace_card or not os.path.exists(path):
        write_text(card, path)


def push_to_hub(
    predictor: Predictor,
    repo_id: str,
    *,
    private: bool = False,
    message: str = "Model of bcnet",
    run: str | os.PathLike | None = None,
    license: str | None = None,
    precision: str = "fp32",
    replace_card: bool = False,
) -> str:
    """See `Predictor.push_to_hub`."""
    repo = check_repo_id(repo_id)
    with tempfile.TemporaryDirectory(prefix="bcnet-push-") as folder:
        save_pretrained(predictor, folder, run=run, license=license, precision=precision, repo_id=repo)
        return upload_folder(folder, repo, private=private, message=message, replace_card=replace_card)
