"""Make the virtual environment of a stack from its lock: where there is no engine."""
