"""``python -m bcnet.study FOLDER`` executes one run of a study."""

import sys

from bcnet.study.runs import execute_run

if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    execute_run(folder)
