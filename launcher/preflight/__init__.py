"""Check this machine before a workshop, and list what to fix.

`tasks.py` calls `run.run`. A check yields a `findings.Finding`.
"""
