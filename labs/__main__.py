"""Run `python -m labs`, the command line of the container and of the environment."""

from labs.cli.heartbeat import end_with_launcher
from labs.cli.main import main
from labs.kit.run import stop_request
from labs.kit.run.processes import leave

if __name__ == "__main__":
    stop_request.hold()
    end_with_launcher()
    leave(main())
