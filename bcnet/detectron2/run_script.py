"""Runs a script of detectron2 with bcnet's components, config keys and data sets.

    python -m bcnet.detectron2 detectron2/tools/train_net.py --config-file output/config.yaml --eval-only

Any script and its own arguments: detectron2's `train_net.py`, `lazyconfig_train_net.py`, `deploy/export_model.py` and
others that know nothing of bcnet. Data sets of bcnet's catalog, and those named by their files
(``coco:annotations.json:images``), are registered where the arguments or the config file name them.
"""

from __future__ import annotations

import os
import sys

from bcnet.detectron2.scripts import (
    add_keys_to_defaults,
    follow_keys_in_optimizers,
    register_named_datasets,
    unknown_key_of_script,
)

_SCRIPT = "BCNET_DETECTRON2_SCRIPT"  # environment variable: the script, for processes that it spawns

if __name__ == "__main__":
    if len(sys.argv) < 2 or not os.path.isfile(sys.argv[1]):
        if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
            sys.exit(f"there is no script {sys.argv[1]!r}")
        sys.exit(f"usage: python -m bcnet.detectron2 SCRIPT [ARGUMENTS]\n\n{__doc__}")
    os.environ[_SCRIPT] = os.path.abspath(sys.argv.pop(1))
    sys.path.insert(0, os.path.dirname(os.environ[_SCRIPT]))

# Processes that detectron2 spawns import this file anew, as "__mp_main__", with the same arguments: they must find the
# script's functions here, and bcnet's keys in the default config.
if __name__ in ("__main__", "__mp_main__"):
    add_keys_to_defaults()
    follow_keys_in_optimizers()
    register_named_datasets(sys.argv[1:])
    __file__ = sys.argv[0] = os.environ[_SCRIPT]
    with open(__file__, encoding="utf-8") as _file:
        _code = compile(_file.read(), __file__, "exec")
    try:
        exec(_code, globals())
    except (KeyError, AssertionError) as _error:
        if _message := unknown_key_of_script(_error):
            sys.exit(_message)
        raise
