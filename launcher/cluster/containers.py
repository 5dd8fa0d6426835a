"""A lab's container in a job of Slurm, by Apptainer or by Pyxis, which uses Enroot.

On each node one container has all of the node's processes. It gets what compose.yaml gives the
container of an engine, as far as the two programs allow. Its processes are in the job's cgroup, so
Slurm's limits hold for them.
https://apptainer.org/docs/user/latest/, https://github.com/NVIDIA/pyxis/wiki/Usage
"""

import subprocess
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from common.processes import capture
from launcher import ROOT, settings
from launcher.cluster.runtime import NODE, ONE_FILTER, Shape, Start
from launcher.engine.container_spec import Bind
from launcher.environment import make as environment
from launcher.image.status import hash_of_files
from launcher.run.file_owner import file_owner, make_writable_folder
from launcher.run.lab_command import LabCommand
from launcher.run.service import hub_cache, shell_line

FOLDER = environment.FOLDER / "images"
APPTAINER = "apptainer"
PYXIS = "pyxis"
_ENDINGS = {APPTAINER: "sif", PYXIS: "sqsh"}
_LABS = ("/opt/labs/venv/bin/python", "-m", "labs")  # Enroot's login shell resets the image's PATH
_NO_APPTAINER = """\
if ! command -v apptainer > /dev/null; then
    echo "what: $SLURMD_NODENAME has no command apptainer." >&2
    echo "why: The job was submitted with --runtime apptainer, and runs it on each node." >&2
    echo "fix: module load apptainer, then invoke lab again; or --runtime venv" >&2
    exit 3
fi"""
_PASS_ON = """\
# The container gets these variables of the job, and no others.
for name in {names}; do
    if [ -n "${{!name+set}}" ]; then export "APPTAINERENV_$name=${{!name}}"; fi
done"""
_VARIABLES = ("LABS_CONTINUE", "OMP_NUM_THREADS")
_RENDEZVOUS = ("LABS_NODE", "LABS_NODES", "MASTER_ADDR", "MASTER_PORT", "${!GLOO_@}", "${!NCCL_@}")
_GPU_FILTER = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "ROCR_VISIBLE_DEVICES"}
# --rocm would also bind the node's libraries, which can break those of the image:
# https://github.com/apptainer/apptainer/issues/1621
_AMD_GPUS = """\
# The GPUs that the job may open.
for node in /dev/kfd /dev/dri/renderD*; do
    if (: <> "$node") 2> /dev/null; then APPTAINER_BIND+=${APPTAINER_BIND:+,}$node; fi
done
export APPTAINER_BIND"""


def start(runtime: str, command: LabCommand, shape: Shape) -> Start:
    """Start a container on each node, on a file system that all nodes share.

    Raises:
        Card: If the path of a folder can't be written as a mount.
    """
    make = _in_apptainer if runtime == APPTAINER else _in_pyxis
    return make(command.with_processes(shape.processes), shape, image_file(runtime, shape))


def image_file(runtime: str, shape: Shape) -> Path:
    """Return the file for the image. Its name has a hash of the clone's files in docker/."""
    stack = f"{shape.stack}-{shape.gfx}" if shape.gfx else shape.stack
    return FOLDER / f"{stack}-{hash_of_files(shape.stack)}.{_ENDINGS[runtime]}"


def prepare(runtime: str, shape: Shape, online: bool) -> None:
    """Create the folders that the container writes to, and refuse a job that can't start.

    Raises:
        Card: If the image's file is missing or of another version, srun has no Pyxis, or a folder
            can't be written.
    """
    for bind in binds(online):
        if not bind.read_only:
            make_writable_folder(Path(bind.source), file_owner())
    if runtime == PYXIS and "--container-image" not in _srun_help():
        raise Card(
            "Slurm has no Pyxis here.",
            "srun --help doesn't list --container-image, which Pyxis adds.",
            "--runtime apptainer, or --runtime venv; or ask the cluster's administrators",
        )
    file = image_file(runtime, shape)
    if file.is_file():
        return
    stack = file.name.rpartition("-")[0]
    others = sorted(other.name for other in FOLDER.glob(f"{stack}-????????{file.suffix}"))
    why = "The nodes start the container from this file, which is made from the image."
    if others:
        why = f"docker/ has changed since {others[-1]} was made."
    raise Card(f"The image file {file} is missing.", why, _how_to_make(runtime, shape, file))


def _how_to_make(runtime: str, shape: Shape, file: Path) -> str:
    target = ["--gfx", shape.gfx] if shape.gfx else []
    build = ["invoke", "build", "--runtime", "docker", "--stack", shape.stack, *target]
    image = f"llm-labs:{shape.stack}" + (f"-{shape.gfx}" if shape.gfx else "")
    make = ["apptainer", "build", str(file), f"docker-daemon:{image}"]
    if runtime == PYXIS:
        make = ["enroot", "import", "--output", str(file), f"dockerd://{image}"]
    folder = ["mkdir", "-p", str(file.parent)]
    return " && ".join(map(shell_line, (build, folder, make)))


def binds(online: bool) -> tuple[Bind, ...]:
    """Return the mounts of a lab's container, as in compose.yaml and in `invoke lab`."""
    setting = settings.find("LABS_OUTPUTS")
    outputs = ROOT / (setting.value if setting else "outputs")
    return (
        Bind(str(ROOT / "labs"), "/lab/labs", read_only=True),
        Bind(str(ROOT / "common"), "/lab/common", read_only=True),
        Bind(str(outputs), "/lab/outputs"),
        Bind(str(ROOT / "work"), "/lab/work", read_only=True),
        Bind(str(ROOT / "work" / "progress"), "/lab/work/progress"),
        *([hub_cache(file_owner())] if online else []),
    )


def _in_apptainer(command: LabCommand, shape: Shape, file: Path) -> Start:
    words = ["apptainer", "--quiet", "exec", "--containall", "--no-home", "--no-privs"]
    if shape.nodes == 1 and not command.online:
        words += ["--net", "--network", "none"]
    words += ["--nv"] if shape.stack == "cuda" else []
    for bind in binds(command.online):
        words.append(f"--mount={bind.mount_words()}")
    words += ["--pwd", "/lab", str(file), "env", "HOME=/tmp/home", *_LABS, *command.words]
    names = [*_VARIABLES, *(_RENDEZVOUS if shape.nodes > 1 else ())]
    names += [_GPU_FILTER[shape.stack]] if shape.gpus else []
    setup = [_NO_APPTAINER, *_node(shape), _PASS_ON.format(names=" ".join(names))]
    setup += [_AMD_GPUS] if shape.stack == "rocm" else []
    return Start(1, words, setup, [shape.threads])


def _in_pyxis(command: LabCommand, shape: Shape, file: Path) -> Start:
    options = [
        f"--container-image={file}",
        f"--container-mounts={','.join(map(_pyxis_mount, binds(command.online)))}",
        "--container-workdir=/lab",
        "--container-readonly",
        "--no-container-mount-home",
        "--no-container-remap-root",
    ]
    if shape.nodes == 1 and not command.online and "--container-unshare" in _srun_help():
        options.append("--container-unshare=net")  # since Pyxis 0.24
    setup = _node(shape) + ([ONE_FILTER] if shape.stack == "rocm" else [])
    exports = [shape.threads]
    if shape.stack == "cuda":  # for Enroot's hook; the job's cgroup decides which it may open
        exports.append(
            "export NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        )
    words = ["setpriv", "--no-new-privs", *_LABS, *command.words]
    return Start(1, words, setup, exports, options)


def _node(shape: Shape) -> list[str]:
    return [NODE] if shape.nodes > 1 else []


def _pyxis_mount(bind: Bind) -> str:
    """Return a mount as Pyxis writes it.

    Raises:
        Card: If the path has a character that Pyxis takes for the end of the path.
    """
    if set(bind.source) & set(",:"):
        why = "--container-mounts separates paths by commas and colons."
        raise Card(f"Pyxis can't mount {bind.source}.", why, "move the clone", WRONG_USAGE)
    return f"{bind.source}:{bind.target}" + (":ro" if bind.read_only else "")


def _srun_help() -> str:
    """Return the options of srun with those of its plugins, or "" if it isn't here."""
    try:
        return capture(["srun", "--help"], stderr=subprocess.DEVNULL).stdout
    except FileNotFoundError:
        return ""
