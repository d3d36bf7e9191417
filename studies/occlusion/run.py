"""``python -m studies.occlusion.run FOLDER`` executes one run of a study."""

import sys

from studies.occlusion.runs import execute_run

if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    execute_run(folder)
