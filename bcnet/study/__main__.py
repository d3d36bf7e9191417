"""``python -m bcnet.study FOLDER`` executes one run of a study."""

import sys

from bcnet.study.runs import main

if __name__ == "__main__":
    main(sys.argv[1:])
