"""``python -m bcnet``: entry point of the `bcnet` command without an installed script, and for torchrun."""

from bcnet.cli import main

if __name__ == "__main__":
    main()
