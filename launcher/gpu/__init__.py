"""Find the GPUs of this machine, explain why one is unusable, and give each run its own."""
