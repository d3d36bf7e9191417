"""Files of a run that say what it was started with, which a later start must agree with."""

from __future__ import annotations

import json
import os

from bcnet.config import load_config
from bcnet.files import read_json, write_json, write_text

CONFIG_FILE, LOCK_FILE = "run.yaml", "run.lock"
REMEDY = "choose another output folder, or remove this run's"


def write_run_config(cfg, folder: str) -> None:
    """Writes the config of a run to its folder, ``run.yaml``.

    Raises:
        ValueError: there is the config of another plan.
    """
    path = os.path.join(folder, CONFIG_FILE)
    if os.path.exists(path):
        # Loaded instead of compared as text, so that keys added since then get their defaults.
        if load_config(path).dump() != cfg.dump():
            raise ValueError(f"{path} belongs to another plan; {REMEDY}")
        return
    os.makedirs(folder, exist_ok=True)
    write_text(cfg.dump(), path)


def require_same(path: str, content: dict, remedy: str = REMEDY) -> None:
    """Raises ValueError if there is a json file of other content, with the keys that differ and the remedy."""
    if not os.path.exists(path):
        return
    before, content = read_json(path), json.loads(json.dumps(content))
    differing = [key for key in {**before, **content} if before.get(key) != content.get(key)]
    if differing:
        raise ValueError(f"{path} belongs to another plan, which differs in {', '.join(differing)}; {remedy}")


def keep_json(path: str, content: dict, remedy: str = REMEDY) -> None:
    """Writes a json file, unless it is there with the same content; raises ValueError if it is with another."""
    require_same(path, content, remedy)
    if not os.path.exists(path):
        write_json(path, content, indent=None)
