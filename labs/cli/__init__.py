"""The command line of `python -m labs`: each module parses its arguments and calls."""
