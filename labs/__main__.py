"""`python -m labs`: the one command line that the container and the environment both run."""

from labs.kit.cli import main
from labs.kit.ranks import leave

leave(main())
