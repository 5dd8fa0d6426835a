"""Serve lessons and sheets in JupyterLab, from a container or an environment.

`tasks.py` calls `run.run`. Preflight starts many servers at once with `server`.
"""
