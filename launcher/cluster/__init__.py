"""Run a lab as a job of Slurm, or print it as a Job of Kubernetes."""
