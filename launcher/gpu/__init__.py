"""Find the GPUs of this machine, explain why one is unusable, and give each run its own.

`detect.detect` reads them from sysfs and the drivers' files, and `model` describes one. `select`
chooses among them and attaches them to a container. `lease.run_lease` reserves them until the run
ends.
"""
