"""`python -m labs`: the one command line that the container and the environment both run."""

from labs.kit.cli import main

raise SystemExit(main())
