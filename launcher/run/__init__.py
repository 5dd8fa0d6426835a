"""Run a lab: choose runtime, GPUs and stack, prepare its folders, start it, explain its end.

`tasks.py` calls `lab.run`, after `lab_command` has checked the options. Notebooks, hub, cluster
and preflight use the same choices: `runtime.choose_runtime`, `placement.choose_placement`, and
`service`, which turns a service of compose.yaml into the container of a run.
"""
