"""Run a lab as a job of Slurm, or print it as a Job of Kubernetes.

`tasks.py` calls `lab.run` and `lab.jobs` for Slurm, and `kubernetes_job.write`. On a node, `node`
gives a container what its job has.
"""
