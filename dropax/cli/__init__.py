"""The command line: `python -m dropax`."""
