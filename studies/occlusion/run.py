"""``python -m studies.occlusion.run FOLDER [MODULE ...]`` executes one run of a study, after importing the modules."""

import sys

from bcnet.registry import import_modules
from studies.occlusion.runs import execute_run

if __name__ == "__main__":
    folder, *modules = sys.argv[1:]
    import_modules(modules)
    execute_run(folder)
