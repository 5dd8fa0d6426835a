"""Run a lab: choose runtime, GPUs and stack, prepare its folders, start it, explain its end."""
