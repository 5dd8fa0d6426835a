"""Run code that nobody has read: in a child process, with limits that the kernel enforces."""
