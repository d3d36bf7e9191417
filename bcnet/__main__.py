"""``python -m bcnet``: the `bcnet` command where it is not on the PATH, and for torchrun."""

from bcnet.cli import main

if __name__ == "__main__":
    main()
