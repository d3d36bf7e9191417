"""``python -m bcnet.cli``, where the command is not on the path."""

from bcnet.cli import main

if __name__ == "__main__":
    main()
