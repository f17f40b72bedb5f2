"""Starts the command line: `python -m dropax`."""

import sys

from dropax.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
