"""Long trainings: watch the loss, write checkpoints, resume."""
