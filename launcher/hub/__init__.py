"""Start, stop and set up the hub of a class; what runs inside its container is in hub/.

`tasks.py` calls `start` and `stop`. `folder` writes the files of the hub into workshop/, from the
`settings` that the teacher wrote into hub.toml. Preflight checks the same settings.
"""
