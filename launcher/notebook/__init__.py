"""Serve lessons and sheets in JupyterLab, from a container or an environment."""
