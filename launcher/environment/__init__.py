"""Make the virtual environment of a stack from its lock: where there is no engine.

Others call `make.required_environment` and `make.ready`, and `stack.choose_stack`, which names
the stack of this machine. `installer` chooses between uv and pip.
"""
