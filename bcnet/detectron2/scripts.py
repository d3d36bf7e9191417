"""What detectron2's own scripts need to run models of bcnet, see ``python -m bcnet.detectron2``."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import yaml
from detectron2.config import defaults
from detectron2.data import DatasetCatalog
from detectron2.solver import build

from bcnet.config.defaults import add_bcnet_config
from bcnet.data.catalog import dataset_names
from bcnet.data.formats import READER_REGISTRY
from bcnet.detectron2.datasets import register_datasets
from bcnet.detectron2.keys import check_trainer_keys, unknown_key
from bcnet.detectron2.optimizers import clip_before_steps

_detectron2_clipping = build.maybe_add_gradient_clipping


def add_keys_to_defaults() -> None:
    """Adds bcnet's keys to the defaults that detectron2's `get_cfg` copies."""
    add_bcnet_config(defaults._C)


def follow_keys_in_optimizers() -> None:
    """Lets detectron2's `build_optimizer`, in this process, read SOLVER.OPTIMIZER and clip as `BCNetTrainer` does.

    It then refuses the keys that `BCNetTrainer` refuses.
    """
    build.maybe_add_gradient_clipping = _follow_keys


def _follow_keys(cfg, optimizer):
    if isinstance(optimizer, type):
        return _detectron2_clipping(cfg, optimizer)
    check_trainer_keys(cfg)
    if cfg.SOLVER.OPTIMIZER == "AdamW" and isinstance(optimizer, torch.optim.SGD):
        keys = ("params", "lr", "weight_decay")
        optimizer = torch.optim.AdamW([{key: group[key] for key in keys} for group in optimizer.param_groups])
    return clip_before_steps(cfg, optimizer)


def unknown_key_of_script(error: BaseException) -> str | None:
    """One line on an unknown config key, with the nearest known one; None if the error is another one."""
    return unknown_key(error, defaults._C, "the script's config or arguments")


def register_named_datasets(arguments: Sequence[str]) -> None:
    """Registers bcnet's data sets that the arguments, or a YAML file among them, name.

    Args:
        arguments: of a script; files are read as YAML, of which the texts are looked at, not the keys.

    Raises:
        ValueError: a malformed spec.
    """
    texts = [text for argument in arguments for text in _texts(argument.partition("=")[2] or argument)]
    for argument in arguments:
        path = argument.partition("=")[2] or argument
        if path.endswith((".yaml", ".yml")) and os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                texts += _texts(_plain_yaml(file.read()))
    own = {*dataset_names()} - {*DatasetCatalog.list()}
    specs = [text for text in texts if ":" in text and text.partition(":")[0] in READER_REGISTRY]
    register_datasets(dict.fromkeys([*specs, *(text for text in texts if text in own)]))


class _TagsIgnored(yaml.SafeLoader):
    """Reads tagged lists, as lazy configs have, as lists and other tagged values as None: nothing is constructed."""


_TagsIgnored.add_multi_constructor(
    "", lambda loader, _, node: loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None
)


def _plain_yaml(text: str) -> object:
    return yaml.load(text, Loader=_TagsIgnored)  # a SafeLoader


def _texts(value: object) -> Iterator[str]:
    """The texts of nested lists, and those in a text such as ``"('coco:a.json:images',)"``."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            inner = ast.literal_eval(value)
            if not isinstance(inner, str):
                yield from _texts(inner)
                return
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in _texts(inner))
    elif isinstance(value, Iterable):
        yield from (text for inner in value for text in _texts(inner))
