"""A lab as N processes: all of them run, and they train as one process with all rows would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from labs.kit.run.processes import run_group
from tests.conftest import REPO, Clone

import pytest

FAIL = 'fail: int = option("the process that crashes", -1, type=int)'
TRAINS = '''
import torch
from torch import nn

@lab.experiment
def trains(run: Run):
    """Twenty steps of AdamW on batches of 16 rows."""
    torch.manual_seed(run.seed)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer = run.accelerator.prepare(model, optimizer)
    data = torch.Generator().manual_seed(run.seed)
    losses = []
    for step in range(20):
        x = run.share(torch.randn(16, 8, generator=data)).to(run.device)
        loss = (model(x) - x.sum(-1, keepdim=True)).square().mean()
        run.accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(run.accelerator.gather(loss.detach()).mean().item())
        if run.accelerator.process_index == run.options.fail:
            os._exit(7)
    run.measure("losses", losses)
    run.measure("rows of a process", x.shape[0])
    run.check("processes", run.accelerator.num_processes, at_least=1)
'''

# The training of LLM06, with 20 steps: rounding grows from step to step.
RECALL = '''
import torch

@lab.experiment
def trains(run: Run):
    """Twenty steps of AdamW, in LLM06."""
    from labs.llm06_attention import lesson, training

    run.pick = lambda **_: 20
    torch.manual_seed(0)
    untrained = lesson.AttentionOnly(2, 1)
    start = torch.cat([one.detach().flatten() for one in untrained.parameters()])
    model, _ = training.train_on_recall(run, lesson.AttentionOnly, 2, 1, run.seed)
    moved = torch.cat([one.detach().flatten().cpu() for one in model.parameters()]) - start
    run.measure("change of every 50th parameter", moved[::50].tolist())
    run.measure("norm of the change", moved.norm().item())
'''


def result(clone: Clone, lab: str, *words: str) -> dict[str, Any]:
    out = f"outputs/{'-'.join(words) or 'one'}"
    ended = clone.labs(lab, "--precision", "fp32", "--outputs", out, *words)
    assert ended.code == 0, ended
    (folder,) = (clone.path / out / lab).iterdir()  # only the main process writes
    assert ended.out.count("Twenty steps of AdamW") == 2, (
        "the claim and its row in the table, from one process"
    )
    return json.loads((folder / "results.json").read_text())


def values(results: dict[str, Any], name: str) -> list[float]:
    (trains,) = [one for one in results["experiments"] if one["name"] == "trains"]
    return next(one["values"] for one in trains["measurements"] if one["name"] == name)


def test_n_processes_train_as_one_with_all_rows(clone: Clone) -> None:
    lab = clone.kit_lab(TRAINS, options=FAIL)
    alone = result(clone, lab)
    together = result(clone, lab, "--processes", "2")
    assert alone["environment"]["processes"] == 1
    assert together["environment"]["processes"] == 2, "two really ran"
    assert values(alone, "rows of a process") == [16.0]
    assert values(together, "rows of a process") == [8.0]
    assert values(together, "losses") == pytest.approx(values(alone, "losses"), rel=1e-5)
    assert values(alone, "losses")[-1] < values(alone, "losses")[0] / 2, "the loss falls"


def test_n_processes_train_llm06_as_one_with_all_rows(clone: Clone) -> None:
    lab = clone.kit_lab(RECALL)
    alone = result(clone, lab)
    together = result(clone, lab, "--processes", "2")
    assert together["environment"]["processes"] == 2, "two really ran"
    name = "change of every 50th parameter"
    # Adam divides by the size of a gradient: where that is nearly 0, rounding matters.
    assert values(together, name) == pytest.approx(values(alone, name), rel=1e-3, abs=1e-4)
    assert values(alone, "norm of the change")[0] > 1, "the parameters change"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_fails_ends_the_others_and_gives_its_exit_code(
    clone: Clone, rank: str
) -> None:
    lab = clone.kit_lab(TRAINS, options=FAIL)
    ended = clone.labs(lab, "--processes", "2", "--", "--fail", rank)
    assert ended.code == 7, ended


def test_a_batch_that_cannot_be_divided_is_an_error(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(TRAINS, options=FAIL), "--processes", "3")
    assert ended.code == 1, ended
    assert "3 processes can't share a batch of 16 equally" in ended.out


def test_a_sheet_and_a_deeper_part_run_as_several_processes(deeper: Clone) -> None:
    assert deeper.labs("learn", "LLM90").code == 0
    for lab, words in (("LLM90", ("--sheet", "work/llm90_small.py")), ("LLM90+", ())):
        ended = deeper.labs(lab, "--processes", "2", *words)
        assert ended.code == 0, ended
        (results,) = (deeper.outputs / lab).glob("*/results.json")
        environment = json.loads(results.read_text())["environment"]
        assert environment["processes"] == 2
        assert ("written_by_you" in environment) == bool(words)


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_an_invalid_number_of_processes_is_a_card(clone: Clone, number: str) -> None:
    ended = clone.labs(clone.kit_lab(TRAINS, options=FAIL), f"--processes={number}")
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err


WRITES_VARIABLES = """
import os, pathlib, sys
words = " ".join(os.environ[name] for name in ("RANK", "WORLD_SIZE", "MORE"))
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(words)
sys.exit(int(sys.argv[2]) if os.environ["RANK"] == "1" else 0)
"""


@pytest.mark.parametrize("code", [0, 5])
def test_each_command_of_a_group_gets_its_rank_and_the_group_returns_the_exit_code(
    tmp_path: Path, code: int
) -> None:
    command = [sys.executable, "-I", "-S", "-c", WRITES_VARIABLES, str(tmp_path), str(code)]
    assert run_group(2, command, MORE="x") == code
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 2 x", "1 2 x"]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_process_of_a_group_leaves_without_finalising_python(processes: str) -> None:
    """Finalisation would break threads that still need Python; exit handlers run in any case."""
    code = (
        "import atexit, labs.kit.run.processes as r\n"
        "class Last:\n    def __del__(self): print('finalised')\n"
        "last = Last(); last.itself = last; atexit.register(print, 'tidied'); r.leave(3)\n"
    )
    variables = {**os.environ, "WORLD_SIZE": processes}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=variables, capture_output=True, text=True
    )
    assert ended.returncode == 3, ended
    assert ended.stdout.split("\n")[0] == "tidied"
    assert ("finalised" in ended.stdout) == (processes == "1")
