"""Grade a learner's sheet: each exercise in a sandboxed child process."""
