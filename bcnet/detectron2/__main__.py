"""``python -m bcnet.detectron2``: runs a script of detectron2, see `bcnet.detectron2.run_script`."""

import runpy

# Not this module: multiprocessing does not import a package's __main__ in the processes that it spawns.
runpy.run_module("bcnet.detectron2.run_script", run_name="__main__", alter_sys=True)
