"""`invoke lab --on slurm` and `invoke jobs`, with a real controller and two node daemons."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from common.cards import Card
from launcher.cluster import lab as slurm_lab
from launcher.cluster import reasons as slurm_reasons
from launcher.cluster import refusals as slurm_refusals
from launcher.cluster.jobs import Job, parse
from launcher.cluster.script import AGAIN
from launcher.run.lab_command import LabCommand
from tests.conftest import BIN, REPO, Clone
from tests.kit.training.trainings import OPTIONS, TRAINS, Training
from tests.launcher.slurm_cluster import Cli, number_of, submitted

import pytest

# Prints what Slurm and torch need to agree on, and waits for a file if its name was given.
RANKS = """
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
slurm = ("SLURMD_NODENAME", "SRUN_CPUS_PER_TASK", "OMP_NUM_THREADS")
seen = {name: os.environ.get(name) for name in (*names, *slurm)}
shown = {name: one for name, one in os.environ.items() if "VISIBLE" in name or "ORDINAL" in name}
os.write(1, (json.dumps({**seen, "shown": shown}) + "\\n").encode())
"""
WAITING = "print('begun', flush=True)\nwhile not (OUTPUTS / 'go').exists(): time.sleep(0.05)"
# A training that waits after its step 25 for a file.
WAITING_TRAINING = TRAINS.replace(
    "checkpoints.save_if_due(step + 1)\n",
    """checkpoints.save_if_due(step + 1)
        while step == 25 and not Path("outputs/go").exists():
            time.sleep(0.05)
""",
).replace("import torch\n", "import time\nimport torch\n", 1)
RANK_1_DIES = """
if os.environ["RANK"] == "1":
    raise RuntimeError("rank 1 is broken")
time.sleep(600)
"""


TRAIN = ("lab", "LLM90", "--on", "slurm", "--nodes", "2", "--processes", "2", "--precision", "fp32")


def test_a_job_runs_on_two_nodes_and_its_output_and_exit_code_are_the_command_s(cli: Cli) -> None:
    ended = cli.lab(RANKS, "--nodes", "2", "--processes", "4").ended()
    assert ended.code == 0, ended
    ranks = [json.loads(line) for line in ended.out.strip().splitlines()]
    ranks.sort(key=lambda one: int(one["RANK"]))
    assert [one["RANK"] for one in ranks] == ["0", "1", "2", "3"]
    assert [one["LOCAL_RANK"] for one in ranks] == ["0", "1", "0", "1"]
    assert [one["SLURMD_NODENAME"] for one in ranks] == ["n1", "n1", "n2", "n2"]
    assert {one["WORLD_SIZE"] for one in ranks} == {"4"}
    assert {one["MASTER_ADDR"] for one in ranks} == {"127.0.0.1"}
    assert len({one["MASTER_PORT"] for one in ranks}) == 1
    assert {one["OMP_NUM_THREADS"] for one in ranks} == {"1"}
    number = number_of(ended.err)
    assert f"Job {number} ended: COMPLETED." in ended.err
    script = next((cli.clone.outputs / "slurm").glob("LLM91-*.sbatch"))
    assert str(script) in ended.err


def test_a_failed_rank_ends_the_others_and_its_traceback_is_shown(cli: Cli) -> None:
    """Slurm's own exit code is the highest, here that of the rank that it ended with TERM."""
    ended = cli.lab(RANK_1_DIES, "--nodes", "2", "--processes", "2").ended()
    assert ended.code == 1, ended
    assert "RuntimeError: rank 1 is broken" in ended.out
    assert f"Job {number_of(ended.err)} ended: FAILED." in ended.err


def test_the_script_can_be_submitted_by_hand(cli: Cli) -> None:
    lab = cli.clone.bare_lab("print('from the script', arguments)")
    words = ["lab", lab, "--on", "slurm", "--time", "5", "--", "--word", "a 'b' $HOME"]
    dry = cli.run("--dry", *words)
    assert dry.code == 0, dry
    script = cli.clone.path / "mine.sbatch"
    script.write_text(dry.out)
    cli.clone.outputs.joinpath("slurm").mkdir(parents=True, exist_ok=True)
    cli.cluster.ask("sbatch", "--wait", str(script))
    number = cli.cluster.ask("squeue", "--states=all", "-h", "-o", "%i", "--sort=-i").split()[0]
    log = (cli.clone.outputs / "slurm" / f"{number}.log").read_text()
    assert '''"a 'b' $HOME"''' in log, log


def test_a_job_that_waits_says_why_and_a_detached_one_can_be_followed(cli: Cli) -> None:
    """The first takes all CPUs."""
    whole = ("--nodes", "2", "--processes", "32")
    first = cli.lab(WAITING, "--slurm-options", "--exclusive", *whole, "--detach").ended()
    assert first.code == 0, first
    one = number_of(first.err)
    assert f"invoke jobs {one}" in first.err and f"scancel {one}" in first.err
    cli.cluster.wait_for("running job", lambda: cli.cluster.state(one) == "RUNNING")
    second = cli.start("lab", "LLM91", "--on", "slurm")
    two = submitted(second)
    second.wait_for(f"Job {two} waits in the queue (")
    listed = cli.run("jobs")
    header, *rows = [line.split("\t") for line in listed.out.splitlines()]
    assert header == ["job", "name", "time", "state", "command"]
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)
    states = {row[0]: (row[1], row[3]) for row in rows}
    assert states[one] == ("llm-labs-LLM91", "runs on n[1-2]")
    assert states[two][1].startswith("waits in the queue")
    commands = {row[0]: row[4] for row in rows}
    assert "--slurm-options --exclusive --nodes 2" in commands[one]
    assert commands[two] == "invoke lab LLM91 --on slurm"
    assert "The output of a job is in outputs/slurm/NUMBER.log." in listed.err

    again = cli.start("jobs", one)
    again.wait_for("begun")
    cli.go()
    assert again.ended().code == 0, again.text
    assert second.ended().code == 0, second.text
    # A short job can end between two looks at the queue.
    assert f"Job {two} ended: COMPLETED." in second.text


@pytest.mark.parametrize(
    ("answer", "says", "state"),
    [
        (b"c\n", "Cancelled job", "CANCELLED"),
        (b"\n", "goes on", "RUNNING"),
        (b"\x03", "goes on", "RUNNING"),
    ],
    ids=["cancel", "leave", "leave by a second Ctrl-C"],
)
def test_ctrl_c_asks_whether_to_cancel_the_job(
    cli: Cli, answer: bytes, says: str, state: str
) -> None:
    running = cli.lab(WAITING, terminal=(24, 200))
    running.wait_for("begun")
    number = number_of(running.text)
    running.type(b"\x03")
    running.wait_for("or leave it running? [c/L]")
    running.type(answer)
    assert running.ended().code == 130, running.text
    assert says in running.text
    assert "interrupted" not in running.text, "the last words say what ends and what goes on"
    cli.cluster.wait_for(state, lambda: cli.cluster.state(number) == state)
    cli.go()


def test_after_cancel_the_checkpoint_of_the_training_is_named(cli: Cli) -> None:
    cli.clone.kit_lab(WAITING_TRAINING, options=OPTIONS)
    train = ("lab", "LLM90", "--on", "slurm", "--precision", "fp32", "--seed", "5")
    running = cli.start(*train, terminal=(24, 300))
    running.wait_for("step 25")
    number = number_of(running.text)
    running.type(b"\x03")
    running.wait_for("or leave it running? [c/L]")
    running.type(b"c\n")
    running.wait_for(f"Cancelling job {number}. A training saves a checkpoint first.")
    log = cli.clone.outputs / "slurm" / f"{number}.log"
    cli.cluster.wait_for("signal", lambda: "Job step aborted" in log.read_text())
    cli.go()
    assert running.ended().code == 130, running.text
    again = rf"Cancelled job {number}\. To go on: sbatch \S+, which goes on from .* step (\d+)\."
    found = re.search(again, running.text)
    assert found, running.text
    assert 26 <= int(found[1]) < 40, "it was saved after the signal, and before the last step"


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_signal_leaves_the_job_running(cli: Cli, what: signal.Signals) -> None:
    running = cli.lab(WAITING)
    running.wait_for("begun")
    number = number_of(running.text)
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert f"Job {number} goes on." in ended.err and "interrupted" not in ended.err
    assert cli.cluster.state(number) == "RUNNING"
    cli.go()


def test_a_cancelled_job_is_a_card(cli: Cli) -> None:
    running = cli.lab(WAITING)
    running.wait_for("begun")
    cli.cluster.ask("scancel", number_of(running.text))
    ended = running.ended()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "was cancelled" in ended.err and "Traceback" not in ended.err
    assert "which starts from the beginning: this job saved no checkpoint; its " in ended.err


def test_a_job_outlives_a_restart_of_the_controller(cli: Cli) -> None:
    running = cli.lab(WAITING)
    running.wait_for("begun")
    cli.cluster.kill("controller", signal.SIGTERM)  # so that it saves its state
    running.wait_for("Slurm's controller doesn't respond; trying again")
    cli.cluster.start_controller()
    cli.go()
    ended = running.ended()
    assert ended.code == 0, ended
    assert "ended: COMPLETED" in ended.err


def weights_of_an_undisturbed_training(cli: Cli) -> bytes:
    """Return what a training ends with, run once for all tests; no run is left in outputs/."""
    kept = cli.clone.path / "undisturbed.safetensors"
    runs = cli.clone.outputs / "LLM90"
    cli.clone.kit_lab(WAITING_TRAINING, options=OPTIONS)
    if not kept.exists():
        cli.go()
        ended = cli.run(*TRAIN)
        assert ended.code == 0, ended
        (weights,) = runs.glob("*/final.safetensors")
        weights.rename(kept)
        (cli.clone.outputs / "go").unlink()
    shutil.rmtree(runs, ignore_errors=True)
    return kept.read_bytes()


def test_a_preempted_training_goes_on_from_its_checkpoint_bit_for_bit(cli: Cli) -> None:
    weights = weights_of_an_undisturbed_training(cli)
    running = cli.start(*TRAIN)
    running.wait_for("step 25\n")
    number = number_of(running.text)
    before = len(running.text)
    cli.cluster.ask("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true")
    again = f"Job {number} was preempted and waits in the queue; Slurm starts it again in about two"
    running.wait_for(lambda: again in running.text[before:])
    cli.cluster.wait_for("queued job", lambda: cli.cluster.state(number) == "PENDING")
    # Slurm waits two minutes before it starts a job again.
    cli.cluster.ask("scontrol", "update", f"job={number}", "StartTime=now")
    cli.go()
    ended = running.ended()
    assert ended.code == 0, ended
    begins = [int(one) for one in re.findall(r"starts at (\d+)\n", ended.out)]
    assert begins == [0, 24], "the log has both parts"
    assert Training(cli.clone).finished().weights == weights


def test_a_training_that_slurm_asks_to_stop_saves_and_goes_on_when_resubmitted(cli: Cli) -> None:
    """Slurm sends the same signal to the same processes before a time limit."""
    weights = weights_of_an_undisturbed_training(cli)
    running = cli.start(*TRAIN)
    running.wait_for("step 25\n")
    number = number_of(running.text)
    cli.cluster.ask("scancel", "--signal=USR1", number)
    cli.go()
    ended = running.ended()
    assert ended.code == 130, ended
    assert "stops after step 27: its job is about to end" in ended.out, ended
    (again,) = re.findall(r"fix: (sbatch \S+\.sbatch), which goes on from it; with", ended.out)
    script = again.removeprefix("sbatch ")
    assert f"with more time: sbatch --time=MINUTES {script}\n" in ended.out
    cli.cluster.ask(*again.split()[:1], "--wait", again.split()[1])
    logs = sorted((cli.clone.outputs / "slurm").glob("*.log"), key=lambda log: int(log.stem))
    assert "starts at 27\n" in logs[-1].read_text()
    assert Training(cli.clone).finished().weights == weights


def test_a_job_for_amd_gpus_gets_one_filter(cli: Cli) -> None:
    lab = cli.clone.bare_lab(RANKS)
    words = ("lab", lab, "--on", "slurm", "--gpus", "2")
    ended = cli.start(*words, LABS_GFX="gfx942").ended()
    assert ended.code == 0, ended
    ranks = [json.loads(line) for line in ended.out.strip().splitlines()]
    assert [one["shown"] for one in ranks] == [{"ROCR_VISIBLE_DEVICES": "0,1"}] * 2
    assert sorted(one["LOCAL_RANK"] for one in ranks) == ["0", "1"]


# What is refused


@pytest.mark.parametrize(
    ("words", "why", "fix"),
    [
        (("--partition", "nosuch"), "invalid partition specified: nosuch\n", "labs, urgent"),
        (("--nodes", "9"), "not available", "partition labs: 2 nodes with 16 CPUs, 8000 MB"),
        (("--slurm-options", "--mem=900G"), "Memory specification", "8000 MB and gpu:mi300x:8"),
        (("--slurm-options", "--gres=xpu:1"), "Invalid generic resource", "sinfo -o '%R %G'"),
        (("--slurm-options", "--foo"), "'--foo'", "change --slurm-options --foo; sbatch --help"),
        (
            ("--slurm-options", "--dependency=afterok:99999"),
            "dependency",
            "change --slurm-options --dependency=afterok:99999; sbatch --help",
        ),
    ],
)
def test_a_job_that_slurm_refuses_is_a_card_with_what_there_is(
    cli: Cli, words: tuple[str, ...], why: str, fix: str
) -> None:
    scripts = set((cli.clone.outputs / "slurm").glob("*"))
    ended = cli.lab("pass", *words).ended()
    assert ended.code == 3, ended
    assert "what: Slurm refuses the job." in ended.err and "Traceback" not in ended.err
    assert why in ended.err and fix in ended.err.partition("fix: ")[2], ended.err
    assert "sbatch: error" not in ended.err
    assert set((cli.clone.outputs / "slurm").glob("*")) == scripts, "no script is left"


def test_a_script_on_more_nodes_than_it_was_written_for_runs_nothing(cli: Cli) -> None:
    """Each node would train alone: two trainings, and two reports in one output."""
    cli.lab("print('ran')").ended()
    script = max((cli.clone.outputs / "slurm").glob("LLM91-*.sbatch"), key=os.path.getmtime)
    number = cli.cluster.ask("sbatch", "--parsable", "--nodes=2", str(script)).strip()
    ended = cli.run("jobs", number)
    assert ended.code == 3 and "ran" not in ended.out, ended
    assert "what: This script is for nodes=1, ntasks=1." in ended.out
    assert "why: Slurm gave it nodes=2, ntasks=2." in ended.out
    assert "fix: write another script: invoke lab ... --on slurm --nodes 2" in ended.out


def test_a_copy_of_a_script_names_itself_as_the_one_to_submit_again(cli: Cli) -> None:
    """Its options may be changed, so the checkpoints of the first one aren't its own."""
    first = cli.lab("print('again:', os.environ['LABS_CONTINUE'])").ended()
    script = max((cli.clone.outputs / "slurm").glob("LLM91-*.sbatch"), key=os.path.getmtime)
    assert f"again: sbatch {script}\n" in first.out
    copy = shutil.copy(script, script.with_name("copy.sbatch"))
    number = cli.cluster.ask("sbatch", "--parsable", str(copy)).strip()
    assert f"again: sbatch {copy}\n" in cli.run("jobs", number).out


def test_a_job_that_slurm_has_forgotten_is_named_with_its_output(cli: Cli) -> None:
    log = cli.clone.outputs / "slurm" / "88888.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    ended = cli.run("jobs", "88888")
    log.unlink()
    assert ended.code == 3 and "what: Slurm has forgotten job 88888." in ended.err, ended
    assert "fix: to read its output: less outputs/slurm/88888.log\n" in ended.err


def test_a_job_that_slurm_refuses_downloads_no_environment(cli: Cli) -> None:
    """The clone has no environment of the stack cuda."""
    cli.cluster.wait_until_idle()  # with a node that isn't well, only sbatch itself refuses
    ended = cli.lab("pass", "--stack", "cuda", "--gpus", "9").ended()
    assert ended.code == 3 and "what: Slurm refuses the job." in ended.err, ended
    assert "partition labs: 2 nodes with 16 CPUs, 8000 MB and gpu:mi300x:8" in ended.err
    assert "Creating an environment" not in ended.err and "allocation failure" not in ended.err
    assert not list((cli.clone.path / ".lab-env").glob("cuda-*"))


def test_while_a_node_is_drained_a_possible_job_is_not_refused(cli: Cli, tmp_path: Path) -> None:
    """Then `sbatch --test-only` refuses what sbatch queues."""
    refuse = f"""
import pathlib
from launcher.cluster import jobs as slurm_jobs, script as slurm_script
options = slurm_script.SlurmOptions()
slurm_jobs.refuse_impossible(pathlib.Path({str(tmp_path / "one.sbatch")!r}), options)
"""
    command = ("env", f"PYTHONPATH={REPO}", sys.executable, "-c", refuse)
    script = tmp_path / "one.sbatch"
    script.write_text("#!/bin/sh\ntrue\n")
    drained = ("scontrol", "update", "nodename=n[1-2]")
    cli.cluster.ask(*drained, "state=drain", "reason=repair")
    try:
        assert "not available" in cli.cluster.ask("sbatch", "--test-only", str(script))
        assert cli.cluster.ask(*command) == ""
    finally:
        cli.cluster.ask(*drained, "state=resume")
    assert cli.cluster.ask(*command) == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--", "--unheard", "2"), "what: LLM10 has no option --unheard."),
        (("--", "--corpus", "/nonexistent.txt"), "what: There is no /nonexistent.txt."),
        (("--runtime", "docker", "--", "--corpus", "/etc/passwd"), "doesn't see /etc/passwd"),
        (("--wait",), "what: --wait is for the GPUs of this machine."),
        (("--processes", "0"), "what: --processes can't be '0'."),
    ],
)
def test_what_the_lab_would_refuse_is_not_submitted(
    cli: Cli, words: tuple[str, ...], says: str
) -> None:
    ended = cli.run("lab", "LLM10", "--on", "slurm", "--stack", "cpu", *words)
    assert ended.code == 2 and says in ended.err, ended
    assert "Submitted" not in ended.err


def test_a_job_that_slurm_refused_is_not_listed(cli: Cli) -> None:
    before = cli.run("jobs").out.splitlines()
    assert cli.lab("pass", "--nodes", "9").ended().code == 3
    assert "BadConstraints" in cli.cluster.ask("squeue", "--states=all", "-h", "-o", "%r")
    assert len(cli.run("jobs").out.splitlines()) <= len(before)


def test_a_job_that_can_never_start_is_a_card_and_stays_in_the_queue(cli: Cli) -> None:
    """The partition's MaxTime is an hour."""
    ended = cli.lab("pass", "--time", "2:00:00").ended()
    number = number_of(ended.err)
    try:
        assert ended.code == 3, ended
        assert f"what: Job {number} can't start: PartitionTimeLimit." in ended.err
        limits = "The job asks for 02:00:00. The partitions allow: labs 1:00:00, urgent infinite."
        assert limits in ended.err
        assert (
            f"fix: scancel {number}, then the same command with a --time up to the partition's"
            in ended.err
        )
        assert cli.cluster.state(number) == "PENDING"
    finally:
        cli.cluster.ask("scancel", number)


def test_a_held_job_is_a_card_until_it_is_released(cli: Cli) -> None:
    ended = cli.lab("print('released')", "--slurm-options", "--hold").ended()
    number = number_of(ended.err)
    assert ended.code == 3 and f"what: Job {number} is held." in ended.err, ended
    assert f"fix: scontrol release {number}, then invoke jobs {number}" in ended.err
    cli.cluster.ask("scontrol", "release", number)
    followed = cli.run("jobs", number)
    assert followed.code == 0 and "released" in followed.out, followed


def test_a_node_that_does_not_share_the_clone_s_file_system_is_named(cli: Cli) -> None:
    """On n1 the clone's outputs/ is an empty folder, or one with an earlier job's output."""
    outputs = cli.clone.outputs
    own = f"mount -t tmpfs tmpfs {outputs} && mkdir {outputs}/slurm && exec slurmd -N n1"
    cli.cluster.kill("n1")
    cli.cluster.ask("unshare", "--mount", "sh", "-c", own)
    try:
        ended = cli.lab("pass", "--slurm-options", "--nodelist=n1").ended()
    finally:
        cli.cluster.kill("n1")
        cli.cluster.start_node("n1")
    number = number_of(ended.err)
    assert ended.code == 3, ended
    assert f"what: Job {number} ended and wrote no output here." in ended.err
    assert f"why: Its node n1 doesn't see {outputs}/slurm" in ended.err
    assert "fix: clone into a folder that they share, then submit again" in ended.err


def test_the_cpus_of_a_task_are_those_of_its_process(cli: Cli) -> None:
    ended = cli.lab(RANKS, "--processes", "2", "--slurm-options", "--cpus-per-task=3").ended()
    assert ended.code == 0, ended
    ranks = [json.loads(line) for line in ended.out.strip().splitlines()]
    assert [one["OMP_NUM_THREADS"] for one in ranks] == ["3", "3"]
    assert [one["SRUN_CPUS_PER_TASK"] for one in ranks] == ["3", "3"]


def test_without_a_controller_a_submission_says_so(cli: Cli) -> None:
    lab = cli.clone.bare_lab("pass")
    settings = cli.cluster.folder / "nobody.conf"
    text = (cli.cluster.folder / "slurm.conf").read_text()
    settings.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1\nMessageTimeout=2", text))
    ended = cli.start("lab", lab, "--on", "slurm", SLURM_CONF=str(settings)).ended()
    assert ended.code == 3 and "what: Slurm doesn't respond." in ended.err, ended
    assert f"fix: scontrol ping; when it is up: invoke lab {lab} --on slurm" in ended.err


@pytest.mark.parametrize("words", [("lab", "LLM91", "--on", "slurm"), ("jobs",), ("jobs", "3")])
def test_without_the_settings_of_a_cluster_the_login_node_is_named(
    cli: Cli, tmp_path: Path, words: tuple[str, ...]
) -> None:
    cli.clone.bare_lab("pass")
    empty = tmp_path / "slurm.conf"
    empty.write_text("")
    ended = cli.start(*words, SLURM_CONF=str(empty)).ended()
    assert ended.code == 3 and "what: Slurm can't be reached from here." in ended.err, ended
    assert "fix: use the cluster's login node; or set SLURM_CONF to its slurm.conf" in ended.err


def test_an_unknown_job_is_a_card(cli: Cli) -> None:
    ended = cli.run("jobs", "99999")
    assert ended.code == 3 and "Slurm doesn't know job 99999" in ended.err, ended
    wrong = cli.run("jobs", "twelve")
    assert wrong.code == 2 and "fix: invoke jobs lists them" in wrong.err, wrong


# Without a cluster


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        ({"nodes": "0"}, 2, "--nodes can't be '0'"),
        ({"nodes": "two"}, 2, "--nodes can't be 'two'"),
        ({"nodes": "2", "processes": "3"}, 2, "--processes can't be 3"),
        ({"nodes": "2", "gpus": "2", "processes": "2", "stack": "cuda"}, 2, "can't be 2"),
        ({"gpus": "all"}, 2, "--gpus can't be 'all'"),
        ({"gpus": "0,1"}, 2, "--gpus can't be '0,1'"),
        ({"gpus": "8", "stack": "cpu"}, 2, "The cpu stack uses no GPU"),
        ({"gpus": "8", "stack": "rocm"}, 3, "The target of the nodes' AMD GPUs isn't known"),
        ({"time": "nonsense"}, 2, "--time can't be 'nonsense'"),
        ({"time": "3h"}, 2, "--time can't be '3h'"),
        ({"stack": "tpu"}, 2, "--stack can't be 'tpu'"),
        ({"runtime": "moon"}, 2, "--runtime can't be 'moon'"),
        ({"slurm_options": "'open"}, 2, "--slurm-options can't be"),
        ({"slurm_options": "mem=32G"}, 2, "--slurm-options can't be 'mem=32G'"),
        ({"account": "a\nb"}, 2, "--account can't be"),
        ({"partition": 'a"b'}, 2, "--partition can't be"),
        ({"on": "", "partition": "gpu"}, 2, "--partition needs --on slurm"),
        ({"on": "", "slurm_options": "--mem=1G"}, 2, "--slurm-options needs --on slurm"),
        ({"on": ""}, 2, "--detach needs --on slurm"),
        ({"on": "moon"}, 2, "--on can't be 'moon'"),
    ],
)
def test_an_impossible_request_is_a_card(
    monkeypatch: pytest.MonkeyPatch, request_: dict[str, str], code: int, says: str
) -> None:
    monkeypatch.delenv("LABS_GFX", raising=False)
    usual = {"on": "slurm", "stack": "auto", "runtime": "auto", "gpus": ""}
    asked = {**usual, **request_}
    processes = asked.pop("processes", "")
    options = ("--processes", processes) if processes else ()
    with pytest.raises(Card, match=re.escape(says)) as refused:
        slurm_lab.run(LabCommand(("LLM91",), options), slurm_lab.Request(**asked), False, True)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ("--nodes=2", "--nodes 2"),
        ("--mem=1G -N 2", "--nodes 2"),
        ("-N1-2", "--nodes NUMBER"),
        ("-n4", "--processes 4"),
        ("--ntasks 4", "--processes 4"),
        ("--ntasks-per-node=2", "--processes, with the number on all nodes together"),
        ("--gpus-per-node=8", "--gpus 8"),
        ("--array=1-3", "leave it out, and submit a job for each --seed"),
        ("-J foo", "leave it out; by this name, invoke jobs finds the job"),
        ("mem=32G", '--slurm-options "--mem=32G"'),
    ],
)
def test_an_option_of_sbatch_that_belongs_to_invoke_is_refused(options: str, fix: str) -> None:
    with pytest.raises(Card) as refused:
        slurm_refusals.refuse_options(shlex.split(options))
    assert (refused.value.code, refused.value.fix) == (2, fix)


@pytest.mark.parametrize("options", ["", "--mem=2G --comment 'a # b'", "-w n1", "--nodelist=n1"])
def test_other_options_of_sbatch_are_accepted(options: str) -> None:
    slurm_refusals.refuse_options(shlex.split(options))


def test_an_option_of_slurm_alone_is_refused(clone: Clone) -> None:
    lab = clone.bare_lab("pass")
    ended = clone.invoke("lab", lab, "--nodes", "2", "--", "--word", "a b")
    assert ended.code == 2, ended
    assert "what: --nodes needs --on slurm." in ended.err
    assert f"fix: invoke lab {lab} --nodes 2 --on slurm -- --word 'a b'" in ended.err


def test_a_machine_without_slurm_is_a_card(clone: Clone, tmp_path: Path) -> None:
    ended = clone.invoke("jobs", PATH=str(tmp_path))
    assert ended.code == 3 and "Slurm's command squeue isn't here" in ended.err, ended


def test_a_line_of_scontrol_with_spaces_in_its_values_is_read() -> None:
    job = parse(
        "JobId=7 JobName=llm-labs-LLM10 JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0 "
        "ReqB:S:C:T=0:0:*:* TRES=cpu=2,mem=4G NodeList=n[1-2] StdErr=/a b/7.log "
        "StdOut=/a b/7.log TresPerNode=gres/gpu:2 \n"
    )
    assert (job.number, job.state, job.exit_status, job.nodes) == ("7", "FAILED", 3, "n[1-2]")
    assert job.log == Path("/a b/7.log")


def test_the_script_is_valid_for_a_shell(clone: Clone) -> None:
    lab = clone.bare_lab("pass")
    more = ("--slurm-options", "--mem=2G --comment 'a # b'", "--nodes", "2", "--processes", "2")
    dry = clone.invoke("--dry", "lab", lab, "--on", "slurm", *more)
    assert dry.code == 0, dry
    assert '#SBATCH --mem=2G --comment "a # b"\n' in dry.out
    command = [str(BIN / "shellcheck"), "--severity=warning", "-"]
    checked = subprocess.run(command, input=dry.out, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout
    assert shlex.split(dry.out, comments=True)


@pytest.mark.parametrize(
    "time", ["", "30", "0", "30:00", "2:00:00", "1-12", "1-12:00:00", "UNLIMITED"]
)
def test_a_time_limit_that_slurm_reads_is_accepted(time: str) -> None:
    slurm_refusals.refuse_time(time)


@pytest.mark.parametrize(
    ("reason", "what"),
    [
        ("PartitionNodeLimit", "Job 7 can't start: PartitionNodeLimit."),
        ("QOSMaxCpuPerJobLimit", "Job 7 can't start: QOSMaxCpuPerJobLimit."),
        ("AssocMaxWallDurationPerJobLimit", "can't start"),
        ("JobHeldAdmin", "Job 7 is held."),
    ],
)
def test_a_reason_that_does_not_end_by_itself_is_a_card(reason: str, what: str) -> None:
    card = slurm_reasons.why_never("7", reason)
    assert card is not None and what in card.what
    assert "scancel 7" in card.fix


@pytest.mark.parametrize(
    "reason", ["Resources", "Priority", "AssocGrpCpuLimit", "QOSMaxJobsPerUserLimit", "BeginTime"]
)
def test_a_reason_that_ends_when_other_jobs_do_is_waited_for(reason: str) -> None:
    assert slurm_reasons.why_never("7", reason) is None


def test_a_printed_script_names_no_file_that_was_never_written(clone: Clone) -> None:
    dry = clone.invoke("--dry", "lab", clone.bare_lab("pass"), "--on", "slurm")
    assert dry.code == 0 and ".sbatch" not in dry.out, dry
    assert f"mkdir -p {clone.outputs}/slurm && sbatch FILE" in dry.out
    assert not (clone.outputs / "slurm").exists()


def test_a_training_that_stopped_as_asked_did_not_fail(tmp_path: Path) -> None:
    script = Path("/a b.sbatch")
    job = Job("7", "llm-labs-LLM10", "FAILED", exit_status=130, script=script)
    assert job.description == "stopped as asked; to continue: sbatch '/a b.sbatch'"
    log = tmp_path / "7.log"
    log.write_text("srun: error: n1: task 0: Exited with exit code 130\n")
    another_was_ended = replace(job, exit_status=143, log=log)
    assert another_was_ended.description == job.description
    assert Job("7", "llm-labs-LLM10", "FAILED", exit_status=1).description == "ended: FAILED"


def test_a_preempted_job_does_not_read_like_a_sick_node(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    log.write_text("step 1\nslurmstepd: error: *** JOB 7 ON n1 CANCELLED DUE TO PREEMPTION ***\n")
    ending = Job("7", "llm-labs-LLM10", "COMPLETING", nodes="n1", log=log, restarts=1)
    assert ending.description.startswith("was preempted and waits in the queue; Slurm starts it")
    log.write_text(f"{log.read_text()}{AGAIN}\nstep 2\n")
    assert ending.description.startswith("is ending; Slurm waits for n1")
