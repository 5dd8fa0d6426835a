"""Faults of a Slurm cluster while a lab's job waits or runs: what the user sees, and what is left.

They happen for real, on a controller and two node daemons.
"""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from common.cards import Card
from launcher.cluster import ends as slurm_ends
from launcher.cluster import jobs as slurm_jobs
from launcher.cluster.jobs import Job
from launcher.cluster.script import AGAIN
from tests.conftest import SOMEBODY, Clone, Running, _fresh_clone, as_user
from tests.kit.training.trainings import OPTIONS
from tests.launcher.slurm_cluster import Cli, Cluster, number_of, stand_in_environment, submitted
from tests.launcher.test_slurm import TRAIN, WAITING_TRAINING

import pytest

WAITING = """
print(f"process {os.getpid()} runs on {os.environ['SLURMD_NODENAME']}.", flush=True)
wait_for("go")
"""
WRITES = """
print("begun", flush=True)
wait_for("go")
print("x" * 10_000, flush=True)
(OUTPUTS / "result.txt").write_text("x" * 10_000)
"""
TWO_NODES = ("--nodes", "2")
SOMEBODY_ELSE = SOMEBODY + 1
# Slurm wants to know the names of users. Only the cluster's mount namespace has these two.
USERS = f"""
for file in passwd group; do
    cp /etc/$file /run/slurm/$file
    mount --bind /run/slurm/$file /etc/$file
done
for user in ada:x:{SOMEBODY}:{SOMEBODY} bob:x:{SOMEBODY_ELSE}:{SOMEBODY_ELSE}; do
    echo "$user::/:/bin/sh" >> /etc/passwd
    echo "${{user%:*}}:" >> /etc/group
done
"""
# What stands in for the Python of an environment, which other users may not read here.
THEIR_PYTHON = (
    "#!/bin/sh\nid -un\nwhile [ ! -e outputs/go ]; do sleep 0.1; done\ntouch outputs/end\n"
)


def processes_on(running: Running, count: int) -> dict[str, int]:
    """Wait for a job's processes; return their numbers by node, or by order."""
    pattern = re.compile(r"process (\d+) runs on (\w+)\.")
    running.wait_for(lambda: len(pattern.findall(running.out)) >= count)
    return {node: int(number) for number, node in pattern.findall(running.out)}


def test_a_killed_process_is_a_card_with_the_command_that_continues(cli: Cli) -> None:
    running = cli.lab(WAITING, *TWO_NODES, "--processes", "2")
    processes = processes_on(running, 2)
    os.kill(processes["n2"], signal.SIGKILL)
    ended = running.ended()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "Slurm reports 'Killed' for task 1 on n2." in ended.err
    assert "Slurm then ended the other tasks." in ended.err
    (script,) = re.findall(r"fix: sbatch (\S+), which starts from the beginning: ", ended.err)
    assert "; it had all memory of its nodes (8,000 MB): use more --nodes, or a" in ended.err
    assert Path(script).is_file()
    assert not any(Path(f"/proc/{process}").exists() for process in processes.values())


def test_of_two_killed_jobs_of_a_lab_each_names_its_own_checkpoint_alone(cli: Cli) -> None:
    cli.clone.kit_lab(WAITING_TRAINING, options=OPTIONS)
    train = ("lab", "LLM90", "--on", "slurm", "--precision", "fp32")
    first = cli.start(*train)
    second = cli.start(*train, "--seed", "7", "--", "--every", "100")
    for running in (first, second):
        running.wait_for("step 25\n")
        cli.cluster.ask("scancel", "--signal=KILL", number_of(running.text))
    says = [running.ended().err for running in (first, second)]
    assert "which goes on from the checkpoint of step 24;" in says[0], says
    assert "which starts from the beginning: this job saved no checkpoint;" in says[1], says

    (script,) = re.findall(r"fix: sbatch (\S+), which", says[0])
    again = cli.start("jobs", cli.cluster.ask("sbatch", "--parsable", script).strip())
    again.wait_for("starts at 24\n")
    cli.cluster.ask("scancel", "--signal=KILL", "--name=llm-labs-LLM90")
    ended = again.ended().err
    assert "which goes on from the checkpoint of step 24;" in ended, "it resumed from it"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("", 143),
        ("srun: error: n1: task 0: Exited with exit code 1\nsrun: error: n2: task 1: Killed", 1),
        ("srun: error: n2: tasks 2-3: Killed\nsrun: error: n1: task 0: Killed", "tasks 2-3 on n2"),
        ("srun: error: n1: task 0: Segmentation fault (core dumped)", "Native code"),
        (f"srun: error: n1: task 0: Killed\n{AGAIN}\n", 143),
        (f"srun: error: n1: task 0: Killed\n{AGAIN}\nsrun: error: n2: task 1: Killed", "1 on n2"),
    ],
)
def test_the_first_task_that_failed_since_the_job_s_last_start_decides(
    tmp_path: Path, output: str, says: str | int
) -> None:
    log = tmp_path / "7.log"
    log.write_text(output)
    job = Job("7", "llm-labs-LLM10", "FAILED", exit_status=143, log=log, script=Path("/a b.sbatch"))
    if isinstance(says, int):
        assert slurm_ends.exit_code(job) == says
        return
    with pytest.raises(Card) as raised:
        slurm_ends.exit_code(job)
    assert says in f"{raised.value.what} {raised.value.why}"
    assert raised.value.fix.startswith("sbatch '/a b.sbatch'")


def test_a_node_that_did_not_start_its_processes_is_named(tmp_path: Path) -> None:
    """The lines are Slurm's, when a node's daemon ended before the job began there."""
    log = tmp_path / "7.log"
    log.write_text(
        "srun: error: Task launch for StepId=7.0 failed on node n2: Communication connection "
        "failure\nsrun: error: n1: task 0: Killed\n"
    )
    job = Job("7", "llm-labs-LLM10", "FAILED", exit_status=137, log=log, script=Path("/a.sbatch"))
    with pytest.raises(Card, match="couldn't start its processes on n2") as raised:
        slurm_ends.exit_code(job)
    assert raised.value.why == "Slurm reports: Communication connection failure."
    assert raised.value.fix.endswith("Without that node: sbatch --exclude=n2 /a.sbatch")


@pytest.mark.parametrize(
    ("memory", "advice"),
    [
        ("500M", "with all memory of its nodes (8,192 MB): sbatch --mem=0 /a.sbatch"),
        ("", "with all memory of its nodes (8,192 MB): sbatch --mem=0 /a.sbatch"),
        ("0", "it had all memory of its nodes (8,192 MB): use more --nodes, or a smaller --size"),
        ("8192M", "it had all memory of its nodes"),
        ("8G", "it had all memory of its nodes"),
    ],
)
def test_more_memory_is_named_only_to_a_job_that_did_not_have_it(
    monkeypatch: pytest.MonkeyPatch, memory: str, advice: str
) -> None:
    monkeypatch.setattr(slurm_jobs, "memory_of", lambda _: 8192)
    job = Job("7", "llm-labs-LLM10", "OUT_OF_MEMORY", script=Path("/a.sbatch"), memory=memory)
    with pytest.raises(Card) as raised:
        slurm_ends.exit_code(job)
    assert advice in raised.value.fix


@pytest.mark.parametrize(("tasks", "others"), [(1, False), (2, True)])
def test_a_card_names_other_tasks_only_if_there_were_some(
    tmp_path: Path, tasks: int, others: bool
) -> None:
    log = tmp_path / "7.log"
    log.write_text("srun: error: n1: task 0: Killed")
    job = Job("7", "llm-labs-LLM10", "FAILED", exit_status=137, log=log, tasks=tasks)
    with pytest.raises(Card) as raised:
        slurm_ends.exit_code(job)
    assert ("the other tasks" in raised.value.why) == others


def test_after_the_time_limit_the_command_with_more_time_is_named() -> None:
    job = Job("7", "llm-labs-LLM10", "TIMEOUT", script=Path("/a b.sbatch"))
    with pytest.raises(Card) as raised:
        slurm_ends.exit_code(job)
    assert raised.value.fix.startswith("sbatch '/a b.sbatch', which starts from the beginning")
    assert raised.value.fix.endswith("; with more time: sbatch --time=MINUTES '/a b.sbatch'")


def test_a_full_shared_folder_is_a_card_though_the_output_lacks_its_end(cli: Cli) -> None:
    outputs = str(cli.clone.outputs)
    ask = cli.cluster.ask
    cli.clone.outputs.mkdir(exist_ok=True)
    ask("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", outputs)
    try:
        running = cli.lab(WRITES)
        running.wait_for("begun")
        ask("dd", "if=/dev/zero", f"of={outputs}/filled", "bs=4k")
        ask("touch", f"{outputs}/go")
        ended = running.ended()
        before = ask("ls", f"{outputs}/slurm")
        second = cli.run("lab", "LLM91", "--on", "slurm")
        after = ask("ls", f"{outputs}/slurm")
    finally:
        ask("umount", outputs)
    assert ended.code == 1, ended
    number = number_of(ended.err)
    assert f"Job {number} failed, and the disk of its output is full." in ended.err
    assert re.search(rf"fix: free space \(df -h {outputs}/slurm\), then sbatch \S+", ended.err)
    assert second.code == 3 and "The disk is full." in second.err, second
    assert before == after, "no half script is left"


def test_a_training_goes_on_in_a_full_shared_folder_and_a_later_job_from_its_checkpoint(
    cli: Cli,
) -> None:
    outputs = str(cli.clone.outputs)
    ask = cli.cluster.ask
    cli.clone.outputs.mkdir(exist_ok=True)
    cli.clone.kit_lab(WAITING_TRAINING, options=OPTIONS)
    ask("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", outputs)
    try:
        running = cli.start(*TRAIN)
        running.wait_for("step 25\n")
        ask("dd", "if=/dev/zero", f"of={outputs}/filled", "bs=4k")
        ask("touch", f"{outputs}/go")
        ended = running.ended()
        ask("rm", f"{outputs}/filled")
        again = cli.run(*TRAIN)
    finally:
        ask("umount", outputs)
    assert "no checkpoint of step 27: The disk is full. The training continues." in ended.out
    assert ended.code != 0, "its results can't be written"
    assert f"Job {number_of(ended.err)} failed, and the disk of its output is full." in ended.err
    assert again.code == 0 and "resumes after step 24" in again.out, again


def test_a_job_goes_on_while_its_nodes_are_drained_and_the_next_one_waits(cli: Cli) -> None:
    drained = ("scontrol", "update", "nodename=n[1-2]")
    running = cli.lab(WAITING)
    processes_on(running, 1)
    cli.cluster.ask(*drained, "state=drain", "reason=repair")
    try:
        waiting = cli.start("lab", "LLM91", "--on", "slurm")
        waiting.wait_for("; sinfo -R lists the nodes that are down or drained")
        cli.go()
        assert running.ended().code == 0, running.text
        assert "waits in the queue (" in cli.run("jobs").out
    finally:
        cli.cluster.ask(*drained, "state=resume")
    assert waiting.ended().code == 0, waiting.text


@pytest.mark.slow
def test_a_job_that_ends_on_a_silent_node_says_so_until_its_daemon_is_back(cli: Cli) -> None:
    """When the daemon is back, Slurm takes up to a minute and a half to ask it again."""
    running = cli.lab(WAITING, *TWO_NODES)
    processes_on(running, 2)
    cli.cluster.kill("n2")
    cli.go()
    running.wait_for("is ending; Slurm waits for n2")
    cli.cluster.start_node("n2")
    ended = running.ended()
    assert ended.code == 0 and "ended: COMPLETED" in ended.err, ended


@pytest.fixture
def two_users(cluster: Cluster, snapshot: Path) -> Iterator[list[tuple[int, Clone]]]:
    """Return two users with a clone each."""
    assert cluster.ask("sh", "-c", USERS) == ""
    users = []
    for user in (SOMEBODY, SOMEBODY_ELSE):
        clone = _fresh_clone(snapshot)
        stand_in_environment(clone, THEIR_PYTHON)
        clone.bare_lab("pass")
        clone.give_to(user)
        users.append((user, clone))
    yield users
    for _, clone in users:
        clone.close()


def test_two_users_have_jobs_at_once_and_neither_can_write_into_the_other_s_clone(
    cluster: Cluster, two_users: list[tuple[int, Clone]]
) -> None:
    (ada, hers), (bob, his) = two_users

    def start(user: int, clone: Clone, *words: str) -> Running:
        enter = [*cluster.enter(clone.path), *as_user(user)]
        where = {"HOME": str(clone.path), **cluster.variables}
        return clone.start_invoke(*words, user=enter, **where)

    lab = ("lab", "LLM91", "--on", "slurm", *TWO_NODES, "--slurm-options", "--exclusive")
    first = start(ada, hers, *lab)
    first.wait_for("ada\n")
    second = start(bob, his, *lab)
    number = submitted(second)
    second.wait_for("waits in the queue (Resources)")
    listed = start(bob, his, "jobs").ended().out
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["job", number], "only his own"

    refused = start(bob, hers, *lab).ended()
    assert refused.code == 3 and "can't be written" in refused.err, refused
    assert "git clone" in refused.err

    for _, clone in two_users:
        (clone.outputs / "go").touch()
    assert first.ended().code == 0, first.text
    assert second.ended().code == 0 and "bob\n" in second.out, second.text
    assert [(clone.outputs / "end").stat().st_uid for clone in (hers, his)] == [ada, bob]


@pytest.mark.slow
def test_a_job_whose_node_fails_starts_again_and_the_node_s_processes_end_with_its_daemon_s_return(
    their_clone: Clone, tmp_path: Path
) -> None:
    """Slurm notices after SlurmdTimeout, which is five minutes by default."""
    cluster = Cluster.new(tmp_path)
    with (tmp_path / "slurm.conf").open("a") as settings:
        settings.write("SlurmdTimeout=15\n")
    (their_clone.outputs / "go").unlink(missing_ok=True)
    cli = Cli(cluster, their_clone)
    try:
        cluster.start()
        running = cli.lab(WAITING, *TWO_NODES)
        number = submitted(running)
        orphan = processes_on(running, 2)["n2"]
        running.wait_for(f"Job {number} runs on n[1-2].")
        cluster.kill("n2")
        running.wait_for(f"Job {number} waits in the queue (BeginTime)")
        assert "DUE TO NODE FAILURE" in running.out
        assert Path(f"/proc/{orphan}").exists(), "nobody could end it"
        cluster.start_node("n2")
        cluster.wait_for("end of the orphan", lambda: not Path(f"/proc/{orphan}").exists())
        # After two minutes. If it starts at once, a late end of its first start can kill it.
        running.wait_for(AGAIN)
        cli.go()
        ended = running.ended()
    finally:
        cluster.close()
    assert ended.code == 0 and "ended: COMPLETED" in ended.err, ended
