"""Check this machine before a workshop, and list what to fix."""
