"""`invoke lab --on slurm` and `invoke jobs`, with a real controller and two node daemons."""

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from launcher import slurm_lab
from launcher.cards import Card
from launcher.lab_command import LabCommand
from launcher.slurm_jobs import parse
from tests.conftest import BIN, Clone
from tests.kit.training.trainings import TRAINS, Training
from tests.launcher.slurm_cluster import Cli, number_of, submitted

import pytest

# Prints what Slurm and torch need to agree on, and waits for a file if its name was given.
RANKS = """
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
seen = {name: os.environ.get(name) for name in (*names, "SLURMD_NODENAME", "OMP_NUM_THREADS")}
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
    """Slurm reports the highest exit code, here that of the rank that it ended with TERM."""
    ended = cli.lab(RANK_1_DIES, "--nodes", "2", "--processes", "2").ended()
    assert ended.code == 128 + signal.SIGTERM, ended
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
    assert f"{one}\tllm-labs-LLM91\truns on n[1-2]" in listed.out
    assert f"{two}\tllm-labs-LLM91\twaits in the queue" in listed.out

    again = cli.start("jobs", one)
    again.wait_for("begun")
    cli.go()
    assert again.ended().code == 0, again.text
    assert second.ended().code == 0, second.text
    # A short job can end between two looks at the queue.
    assert f"Job {two} ended: COMPLETED." in second.text


@pytest.mark.parametrize(
    ("answer", "says", "state"),
    [(b"c\n", "Cancelled job", "CANCELLED"), (b"\n", "goes on", "RUNNING")],
    ids=["cancel", "leave"],
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
    cli.cluster.wait_for(state, lambda: cli.cluster.state(number) == state)
    cli.go()


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_a_signal_leaves_the_job_running(cli: Cli, what: signal.Signals) -> None:
    running = cli.lab(WAITING)
    running.wait_for("begun")
    number = number_of(running.text)
    running.send(what)
    ended = running.ended()
    assert ended.code == 130, ended
    assert f"Job {number} goes on." in ended.err
    assert cli.cluster.state(number) == "RUNNING"
    cli.go()


def test_a_cancelled_job_is_a_card(cli: Cli) -> None:
    running = cli.lab(WAITING)
    running.wait_for("begun")
    cli.cluster.ask("scancel", number_of(running.text))
    ended = running.ended()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "was cancelled" in ended.err and "Traceback" not in ended.err


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
    cli.clone.kit_lab(WAITING_TRAINING)
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
    running.wait_for(lambda: f"Job {number} waits in the queue" in running.text[before:])
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
    assert ended.code in (130, 128 + signal.SIGTERM), ended
    assert "stops after step 27: its job is about to end" in ended.out
    (again,) = re.findall(r"fix: (sbatch \S+\.sbatch), which goes on from it", ended.out)
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
    ("words", "says"),
    [
        (("--partition", "nosuch"), "invalid partition specified"),
        (("--nodes", "9"), "Slurm refuses the job"),
    ],
)
def test_a_job_that_slurm_refuses_is_a_card(cli: Cli, words: tuple[str, ...], says: str) -> None:
    ended = cli.lab("pass", *words).ended()
    assert ended.code == 3, ended
    assert says in ended.err and "fix: sinfo" in ended.err and "Traceback" not in ended.err
    assert "waits" not in cli.run("jobs").out


def test_an_unknown_job_is_a_card(cli: Cli) -> None:
    ended = cli.run("jobs", "99999")
    assert ended.code == 3 and "Slurm doesn't know job 99999" in ended.err, ended
    assert cli.run("jobs", "twelve").code == 2


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
        ({"gpus": "8", "stack": "cpu"}, 3, "The stack of the nodes' GPUs isn't known"),
        ({"gpus": "8", "stack": "rocm"}, 3, "The stack of the nodes' GPUs isn't known"),
        ({"stack": "tpu"}, 2, "--stack can't be 'tpu'"),
        ({"runtime": "moon"}, 2, "--runtime can't be 'moon'"),
        ({"slurm_options": "'open"}, 2, "--slurm-options can't be"),
        ({"account": "a\nb"}, 2, "--account can't be"),
        ({"partition": 'a"b'}, 2, "--partition can't be"),
        ({"on": ""}, 2, "--on can't be ''"),
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


def test_an_option_of_slurm_alone_is_refused(clone: Clone) -> None:
    ended = clone.invoke("lab", clone.bare_lab("pass"), "--nodes", "2")
    assert ended.code == 2, ended
    assert "--on is one of slurm" in ended.err


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
