"""Run `python -m labs`, the command line of the container and of the environment."""

from labs.cli.main import main
from labs.kit.run.processes import leave

if __name__ == "__main__":
    leave(main())
