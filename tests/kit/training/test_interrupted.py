"""An interrupted lab, and the command that resumes it; several processes; TensorBoard."""

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.options import common_parser, settings_from
from tests.conftest import Clone, containers_of
from tests.kit.training.trainings import OPTIONS, TRAINS, Training, first_step

import pytest
from safetensors.torch import load_file


@pytest.fixture
def training(clone: Clone) -> Training:
    clone.kit_lab(TRAINS, options=OPTIONS)
    return Training(clone)


def test_ctrl_c_leaves_the_checkpoints_to_the_next_run(training: Training) -> None:
    running = training.start("--steps", "4000")
    running.wait_for("step 7\n")
    running.send(signal.SIGINT)
    assert running.ended().code == 130, running.text
    assert "The same command resumes from" in running.text
    left = len(training.snapshots)
    assert left == 2
    other = training.run("--resume")
    assert other.code == 2, "the number of steps is another one"
    assert "don't fit this run" in other.err
    assert "--steps was 4000 and is 40" in other.err
    assert "Traceback" not in other.err
    assert len(training.snapshots) == left, "the checkpoints stay"
    ended = training.run()
    assert (ended.code, first_step(ended.out)) == (0, 0), ended
    assert "starts over" in ended.out
    assert len(training.snapshots) == left, "those of another training stay"
    nothing = training.run("--resume", "--outputs", "elsewhere")
    assert nothing.code == 2, nothing
    assert "LLM90 has nothing to resume" in nothing.err
    assert not (training.clone.path / "elsewhere").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_saves_its_last_step(
    training: Training, number: signal.Signals
) -> None:
    training.words = ("--steps", "400", "--every", "3000")
    running = training.start()
    running.wait_for("step 3\n")
    running.send(number)
    ended = running.ended()
    assert ended.code == 130, ended
    (saved,) = training.snapshots
    last = int(saved.name.removeprefix("step-"))
    assert f"many steps: interrupted; saving a checkpoint of step {last} …" in ended.out
    assert f"step {last - 1}\n" in ended.out
    assert f"step {last}\n" not in ended.out, "no step is trained after it"
    assert "The same command resumes from" in ended.err
    again = training.run("--resume")
    assert (again.code, first_step(again.out)) == (0, last), again


def test_of_several_processes_term_lets_the_training_save_its_last_step(
    training: Training,
) -> None:
    """An engine sends it to the first process of a container alone."""
    training.words = ("--steps", "4000", "--every", "3000", "--processes", "2")
    running = training.start()
    running.wait_for("step 3\n")
    running.send(signal.SIGTERM)
    ended = running.ended()
    assert ended.code == 130, ended
    assert "Traceback" not in ended.err
    (saved,) = training.snapshots
    last = int(saved.name.removeprefix("step-"))
    assert f"step {last - 1}\n" in ended.out and f"step {last}\n" not in ended.out
    assert not processes_in(training.clone.path)


def test_a_crash_before_the_first_checkpoint_leaves_no_folder(training: Training) -> None:
    ended = training.run("--steps", "4000", "--every", "3000", "--poison", "3,0")
    assert ended.code == 1, ended
    assert not (training.runs / "checkpoints").exists()


def test_a_crash_after_the_training_does_not_lose_it(training: Training) -> None:
    training.words = ("--crash",)
    assert training.run().code == 1
    assert len(training.snapshots) == 2
    again = training.run("--resume")
    assert again.code == 1, again
    assert first_step(again.out) == 40, "no step is trained again"


def test_a_changed_lab_starts_over(training: Training) -> None:
    training.kill_at(8, 0)
    training.clone.change("labs/llm90_small/lesson.py", "Many steps of AdamW", "Many good steps")
    ended = training.run()
    assert (ended.code, first_step(ended.out)) == (0, 0), ended
    assert "the lab's text has changed" in ended.out


@pytest.mark.engine
def test_a_killed_container_is_resumed_by_docker_compose(training: Training) -> None:
    clone = training.clone
    words = ("--precision", "fp32")
    running = clone.start_invoke("lab", training.lab, "--runtime", "docker", *words)
    running.wait_for("step 7\n")
    (container,) = containers_of(clone)
    container.kill()
    assert running.ended().code == 137, running.text
    last = int(training.snapshots[-1].name.removeprefix("step-"))
    assert last >= 6
    clone.make_folders()
    user = {"LABS_UID": str(os.getuid()), "LABS_GID": str(os.getgid())}
    compose = ("docker", "compose", "run", "--rm", "cpu", training.lab)
    ended = clone.run(*compose, *words, "--resume", **user)
    assert ended.code == 0, ended
    assert first_step(ended.out) == last, ended
    assert not training.snapshots


def measured(training: Training) -> tuple[dict[str, Any], dict[str, list[float]]]:
    finished = training.finished()
    (results,) = finished.runs.glob("*/results.json")
    environment = json.loads(results.read_text())["environment"]
    (trains,) = [one for one in finished.experiments if one["name"] == "trains"]
    return environment, {one["name"]: one["values"] for one in trains["measurements"]}


def test_n_processes_have_the_losses_of_one_at_every_step(clone: Clone) -> None:
    clone.kit_lab(TRAINS, options=OPTIONS)
    words = ("--loader", "--dropout", "0", "--steps", "30")
    found = {}
    for n in ("1", "2", "4"):
        training = Training(clone, (*words, "--processes", n), folder=n)
        ended = training.run("--outputs", n)
        assert ended.code == 0, ended
        environment, found[n] = measured(training)
        assert environment["processes"] == int(n), "all of them ran"
    alone = found.pop("1")
    assert alone["losses"][-1] < alone["losses"][0] / 2, "the loss falls"
    for together in found.values():
        assert together["rates"] == alone["rates"], "the schedule advances once a step"
        assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_nan_in_one_process_stops_them_all(training: Training, rank: str) -> None:
    ended = training.run("--processes", "2", "--poison", f"5,{rank}")
    assert ended.code == 1, ended
    assert ended.err.count("The loss of step 5 is nan") == 1, "one card"
    assert "step 5\n" not in ended.out
    assert "Traceback" not in ended.err
    (saved,) = training.runs.glob("*/nan-batch.safetensors")
    assert {name: tuple(one.shape) for name, one in load_file(saved).items()} == {
        "process0.rows": (4, 17),
        "process1.rows": (4, 17),
    }
    assert [one.name for one in training.snapshots] == ["step-00000003"]


def test_every_process_ends_when_the_first_one_is_killed(training: Training) -> None:
    text = training.kill_at(5, 0, "--processes", "2", "--steps", "100000")
    deadline = time.monotonic() + 60
    while (left := processes_in(training.clone.path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left, text


def processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # it has ended
    return found


def test_resume_and_tensorboard_are_options_of_every_lab() -> None:
    assert settings_from(common_parser("").parse_args([])).resume is False
    parsed = settings_from(common_parser("").parse_args(["--resume", "--tensorboard"]))
    assert (parsed.resume, parsed.tensorboard) == (True, True)


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--resume", "--tensorboard")])
def test_the_launcher_passes_them_to_the_lab(training: Training, flags: tuple[str, ...]) -> None:
    dry = training.clone.invoke("--dry", "lab", training.lab, "--runtime", "venv", *flags)
    assert dry.code == 0, dry
    words = dry.out.splitlines()[-1].split()
    assert [one for one in words if one in ("--resume", "--tensorboard")] == list(flags)


@pytest.mark.skipif(not find_spec("tensorboardX"), reason="this Python lacks tensorboardX")
def test_a_training_is_logged_for_tensorboard(training: Training) -> None:
    from tensorboardX.proto.event_pb2 import Event

    ended = training.run("--tensorboard", "--steps", "6")
    assert ended.code == 0, ended
    assert "TensorBoard: tensorboard --logdir outputs/LLM90/" in ended.out
    (file,) = training.runs.glob("*/tensorboard/events.*")
    logged = {}
    for record in records(file.read_bytes()):
        event = Event.FromString(record)
        for value in event.summary.value:
            logged.setdefault(value.tag, []).append((event.step, value.simple_value))
    _, values = measured(training)
    assert [step for step, _ in logged["loss"]] == list(range(6))
    assert [value for _, value in logged["loss"]] == pytest.approx(values["losses"])


def records(data: bytes) -> list[bytes]:
    """Return the records of an event file.

    Each is a length in 8 bytes, a checksum in 4, the data, and another checksum in 4.
    """
    found = []
    while data:
        end = 12 + int.from_bytes(data[:8], "little")
        found.append(data[12:end])
        data = data[end + 4 :]
    return found


def test_without_the_package_that_writes_logs_tensorboard_is_a_card(training: Training) -> None:
    hidden = training.clone.path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u; f = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'tensorboardX' else f(name, *more)\n"
    )
    path = f"{training.clone.path}:{hidden}"
    ended = training.run("--tensorboard", PYTHONPATH=path)
    assert ended.code == 3, ended
    assert "lacks the package tensorboardX" in ended.err
    assert not training.runs.exists() or not list(training.runs.glob("*/results.json"))
