"""Small labs, run for real by `python -m labs`: what they leave, print, and end with."""

import json
import os
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

from labs.kit.run import missing_gpu
from tests.conftest import SOMEBODY, Clone, as_user

import pytest

# Everything that an experiment can tell, once.
WHOLE = '''
import random
import numpy as np
import torch
import matplotlib.pyplot as plt

@lab.exercise(level=1, hints=("Add.", "a + b", "return a + b"))
def add(a, b):
    return a + b

@lab.experiment
def chance(run: Run):
    """Chance is **seeded**.

    A second paragraph, which is the prediction.
    """
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random()]]
    run.check("in the unit interval", [x for row in drawn for x in row], at_least=0, at_most=1,
              because="a uniform number is one")
    run.measure("first draws", [row[0] for row in drawn], expect_at_most=0.5)
    run.measure("not a number", float("nan"), expect_at_most=1)
    return "It was drawn."

@lab.experiment
def figures(run: Run):
    """A figure and a table are kept."""
    for name in ("line", "dots"):
        fig, ax = plt.subplots()
        ax.plot([1, 2, 3], [1, 4, 9])
        run.figure(fig, name, f"The caption of {name}")
    run.table("A table's title", ["n", "square"], [[n, n * n] for n in range(1000, 1003)])
    run.measure("elapsed", time.perf_counter(), unit="s", timed=True)
    run.check("the word", run.options.word, equals=run.options.word)
    run.check("the sum", add(1, 1), equals=2)
'''
CHECKS = """
from labs.kit import Mistake

def add(implementation):
    if implementation(2, 3) != 5:
        raise Mistake("5 was expected; did you subtract?")
"""


def folder_of(clone: Clone, name: str = "LLM90") -> Path:
    """The folder of the one run there has been; None is told as an error."""
    (folder,) = (clone.outputs / name).iterdir()
    return folder


def results_of(folder: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads((folder / "results.json").read_text("utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def module_clone(snapshot: Path):
    from tests.conftest import _fresh_clone

    one = _fresh_clone(snapshot)
    yield one
    one.close()


@pytest.fixture(scope="module")
def runs(module_clone: Clone) -> dict[str, Any]:
    """Three runs of WHOLE: two with one seed, one with another."""
    lab = module_clone.kit_lab(WHOLE, checks=CHECKS)
    found: dict[str, Any] = {}
    for name, seed in (("one", "1"), ("again", "1"), ("other", "2")):
        words = (lab, "--seed", seed, "--outputs", f"outputs/{name}", "--word", "<b>&")
        ended = module_clone.labs(*words)
        assert ended.code == 0, ended
        (folder,) = (module_clone.outputs / name / lab).iterdir()
        found[name] = (ended, folder, results_of(folder))
    return found


def test_two_runs_with_one_seed_differ_in_their_timings_alone(runs) -> None:
    one, again = (
        {key: value for key, value in runs[name][2].items() if key != "timings"}
        for name in ("one", "again")
    )
    assert one == again
    assert runs["one"][2]["timings"] != runs["again"][2]["timings"]
    assert one["experiments"][1]["measurements"][0]["values"]


def test_another_seed_makes_other_results(runs) -> None:
    one, other = (runs[name][2]["experiments"][1] for name in ("one", "other"))
    assert one["name"] == other["name"] == "chance"
    first, second = (
        next(m["values"] for m in each["measurements"] if m["name"] == "first draws")
        for each in (one, other)
    )
    assert all(a != b for a, b in zip(first, second, strict=True)), (
        "torch, numpy and random are seeded"
    )


def test_the_results_say_what_they_depend_on(runs) -> None:
    results = runs["one"][2]
    for key in ("lab_sha256", "python", "torch", "device", "threads", "cpu_capability",
                "precision", "size", "seed"):  # fmt: skip
        assert results["environment"][key] not in ("", None), key
    assert results["environment"]["seed"] == 1
    assert results["environment"]["options"] == {"word": "<b>&"}
    assert results["passed"] is True


def test_what_is_timed_is_kept_among_the_timings(runs) -> None:
    results = runs["one"][2]
    (timed,) = results["timings"]["experiments"]["figures"]["measurements"]
    assert timed["name"] == "elapsed"
    assert "elapsed" not in json.dumps(results["experiments"])


def test_nan_is_told_as_text(runs) -> None:
    chance = runs["one"][2]["experiments"][1]
    (nan,) = [one for one in chance["measurements"] if one["name"] == "not a number"]
    assert nan["values"] == ["nan"]
    assert nan["verdict"] == "not held"


def test_every_part_is_graded_before_the_experiments(runs) -> None:
    first = runs["one"][2]["experiments"][0]
    assert [check["name"] for check in first["checks"]] == ["add"]
    assert first["checks"][0]["passed"]


def test_the_report_needs_nothing_but_itself(runs) -> None:
    page = (runs["one"][1] / "report.html").read_text("utf-8")
    fetched = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert fetched
    assert all(one.startswith(("data:", "#")) for one in fetched), fetched
    assert "@import" not in page and "<script" not in page
    assert page.count('src="data:image/png;base64,') == 2


def test_the_report_tells_prose_claims_numbers_verdicts_and_code(runs) -> None:
    page = (runs["one"][1] / "report.html").read_text("utf-8")
    for words in (
        "<strong>prose</strong>",
        "Chance is <strong>seeded</strong>.",
        "which is the prediction",
        "a uniform number is one",
        "It was drawn.",
        "The caption of line",
        "The caption of dots",
        "1,002,001",
        "not held",
        "passed",
        "&lt;b&gt;&amp;",
    ):
        assert words in page, words
    assert "<b>&" not in page


def test_the_folder_of_a_run_holds_what_was_promised(runs) -> None:
    folder = runs["one"][1]
    names = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
    assert names == ["figures/dots.png", "figures/line.png", "log.txt", "report.html",
                     "results.json"]  # fmt: skip
    log = (folder / "log.txt").read_text("utf-8")
    assert "It was drawn." in log
    assert "\x1b" not in log


def test_on_a_pipe_everything_is_plain(runs) -> None:
    ended = runs["one"][0]
    assert "\x1b" not in ended.out
    assert "Chance is" in ended.out
    assert ended.out.rstrip().splitlines()[-1].endswith("report.html")


# Failing


def test_a_failed_check_is_in_the_report_the_card_and_the_exit_code(clone: Clone) -> None:
    lab = clone.kit_lab(WHOLE.replace("return a + b\n", "return a - b\n"), checks=CHECKS)
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    assert "what: 2 of LLM90's checks failed" in ended.err
    assert "did you subtract?" in ended.err
    results = results_of(folder_of(clone))
    assert results["passed"] is False
    page = (folder_of(clone) / "report.html").read_text("utf-8")
    assert "failed" in page.split("The claims and their verdicts")[1]
    assert "did you subtract?" in page


def test_a_crash_is_shown_whole_and_keeps_what_came_before(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def first(run: Run):
    """The first holds."""
    run.check("kept", 1, equals=1)

@lab.experiment
def second(run: Run):
    """The second crashes."""
    raise KeyError("a key of its own")

@lab.experiment
def third(run: Run):
    """The third is not reached."""
    run.say("reached")
''')
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    printed = ended.out + ended.err
    assert "Traceback (most recent call last)" in printed
    assert "KeyError: 'a key of its own'" in printed
    assert "LLM90 crashed in second." in ended.err
    assert "reached" not in ended.out
    results = results_of(folder_of(clone))
    assert [one["name"] for one in results["experiments"]] == ["first", "second"]
    assert results["experiments"][0]["checks"][0]["passed"]
    assert "KeyError" in results["experiments"][1]["crash"]
    assert "It crashed" in (folder_of(clone) / "report.html").read_text("utf-8")


def test_a_check_without_a_bound_is_an_error(clone: Clone) -> None:
    lab = clone.kit_lab('''
@lab.experiment
def nothing(run: Run):
    """A check that can't fail is none."""
    run.check("whatever", 1.0)
''')
    ended = clone.labs(lab)
    assert ended.code == 1, ended
    assert "has no bound" in ended.out + ended.err


NOTHING = '''
@lab.experiment
def nothing(run: Run):
    """Nothing."""
    run.say(f"precision {run.precision}")
'''


def test_fp16_on_a_cpu_is_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(NOTHING), "--precision", "fp16", CUDA_VISIBLE_DEVICES="")
    assert ended.code == 3, ended
    assert "what: fp16 can't be trained on a CPU." in ended.err
    assert "bf16" in ended.err
    assert not list(clone.outputs.glob("LLM90/*"))


def test_an_option_of_the_lab_that_does_not_exist_is_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(NOTHING), "--wrod", "x")
    assert ended.code == 2, ended
    assert "what: The options can't be understood." in ended.err
    assert "--wrod" in ended.err


def test_an_outputs_folder_that_is_a_file_is_a_card(clone: Clone) -> None:
    clone.outputs.write_text("")
    ended = clone.labs(clone.kit_lab(NOTHING))
    assert ended.code == 3, ended
    assert "what: The run's files can't be written" in ended.err
    assert "Traceback" not in ended.err


# The hub

MODEL = '''
lab.argument("--model", help="a hub id")

@lab.experiment
def opens(run: Run):
    """A model is opened."""
    run.say(assets.pretrained(run))
'''


def test_a_hub_id_without_online_is_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(MODEL), "--model", "owner/model")
    assert ended.code == 2, ended
    assert "what: owner/model is no folder here" in ended.err
    assert "--online" in ended.err


def test_a_model_s_folder_that_is_not_there_is_not_taken_for_a_hub_id(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(MODEL), "--model", "outputs/none")
    assert ended.code == 2, ended
    assert "what: There is no folder outputs/none." in ended.err
    assert "--online" not in ended.err


def test_a_hub_that_can_not_be_reached_is_a_card_that_names_the_embedded_model(
    clone: Clone,
) -> None:
    words = (clone.kit_lab(MODEL), "--model", "owner/model", "--online")
    cache = {"HF_HOME": str(clone.path / "cache"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    ended = clone.labs(*words, **cache, HF_HUB_OFFLINE=None)
    assert ended.code == 3, ended
    assert "what: owner/model can't be had from the hub." in ended.err
    assert "SmolLM2" in ended.err
    assert "Traceback" not in ended.out + ended.err


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download asks for: one model, with a pickle and code of its own."""

    files: ClassVar[dict[str, bytes]] = {
        "config.json": b'{"model_type": "odd", "auto_map": {"AutoConfig": "code.Config"}}',
        "pytorch_model.bin": b"a pickle",
        "code.py": b"raise SystemExit('the code of a model was run')",
    }
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        about: Any = {"id": "owner/model", "sha": "0" * 40}
        if "/tree/" in self.path:
            about = [{"type": "file", "path": one, "oid": one, "size": 1} for one in self.files]
        body = self.files.get(name, json.dumps(about).encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked.clear()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_neither_pickles_nor_code_come_from_the_hub(clone: Clone, hub: str) -> None:
    words = (clone.kit_lab(MODEL), "--model", "owner/model", "--online")
    cache = {"HF_HOME": str(clone.path / "cache"), "HF_ENDPOINT": hub}
    ended = clone.labs(*words, **cache, HF_HUB_OFFLINE=None)
    assert ended.code == 2, ended
    assert "no *.safetensors" in ended.err
    fetched = {Path(one).name for one in Hub.asked if "/resolve/" in one}
    assert fetched == {"config.json"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": '{"model_type": "llama"}', "pytorch_model.bin": ""}, "no *.safetensors"),
        ({"config.json": '{"model_type": "odd"}', "a.safetensors": ""}, "knows no kind 'odd'"),
        ({"a.safetensors": ""}, "knows no kind None"),
    ],
)
def test_a_folder_that_holds_more_than_data_is_not_opened(
    clone: Clone, files: dict[str, str], why: str
) -> None:
    for name, text in files.items():
        (clone.path / "mine").mkdir(exist_ok=True)
        (clone.path / "mine" / name).write_text(text)
    ended = clone.labs(clone.kit_lab(MODEL), "--model", "mine")
    assert ended.code == 2, ended
    assert why in ended.err


def test_a_folder_with_a_model_that_is_data_is_opened(clone: Clone, labs_home: Path) -> None:
    folder = labs_home / "assets" / "smollm2"
    ended = clone.labs(clone.kit_lab(MODEL), "--model", str(folder))
    assert ended.code == 0, ended
    assert str(folder) in ended.out


# A stack for GPUs without one


@pytest.fixture
def built_for(clone: Clone, labs_home: Path):
    """A home that says that it was built for a stack, and has the real assets."""

    def make(stack: str) -> str:
        home = clone.path / "home"
        home.mkdir()
        (home / "assets").symlink_to(labs_home / "assets")
        (home / "stack.json").write_text(json.dumps({"stack": stack}))
        return str(home)

    return make


@pytest.mark.parametrize(("stack", "node"), [("rocm", "/dev/kfd"), ("cuda", "/dev/nvidiactl")])
def test_a_gpu_s_stack_without_a_gpu_is_a_card_and_no_slow_run(
    clone: Clone, built_for, stack: str, node: str
) -> None:
    if Path(node).exists():
        pytest.skip(f"this machine has {node}")
    lab = clone.kit_lab(NOTHING)
    unset = dict.fromkeys(missing_gpu.FILTERS)
    ended = clone.labs(lab, LABS_HOME=built_for(stack), **unset)
    assert ended.code == 3, ended
    assert f"what: This is the {stack} stack, and torch sees no GPU." in ended.err
    assert f"{node} isn't here" in ended.err
    assert not (clone.outputs / lab).exists() or not list((clone.outputs / lab).iterdir())


def test_who_asks_for_no_gpu_runs_on_the_cpu(clone: Clone, built_for) -> None:
    ended = clone.labs(clone.kit_lab(NOTHING), LABS_HOME=built_for("rocm"), HIP_VISIBLE_DEVICES="")
    assert ended.code == 0, ended


def test_a_node_that_may_not_be_opened_is_told_with_the_group_that_is_missing(
    clone: Clone, root: None
) -> None:
    del root  # another user can be become
    device = clone.path / "kfd"
    device.touch()
    device.chmod(0o660)
    os.chown(device, 0, 4343)
    code = (
        "from pathlib import Path\nfrom labs.kit.run.missing_gpu import absence\n"
        f"absence('rocm', Path('{clone.path}')).show()"
    )
    how = {"user": as_user(SOMEBODY), "PYTHONPATH": str(clone.path), "HOME": str(clone.path)}
    ended = clone.run(sys.executable, "-c", code, **how)
    assert f"uid {SOMEBODY} in groups [] may not open {device}" in ended.err, ended
    assert "give it group 4343" in ended.err


def test_a_node_that_opens_leaves_the_word_to_torch(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    card = missing_gpu.absence("cuda", tmp_path)
    assert card.why and "nvidiactl" not in card.why


def test_models_that_are_not_there_are_a_card(clone: Clone) -> None:
    ended = clone.labs(clone.kit_lab(MODEL), LABS_HOME=None)
    assert "The labs' models aren't here." in ended.out + ended.err, ended


# Several labs


def test_several_labs_end_in_one_table_and_one_killed_does_not_stop_the_others(
    clone: Clone,
) -> None:
    clone.kit_lab(NOTHING, "LLM80")
    clone.kit_lab('''
@lab.experiment
def dies(run: Run):
    """It is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
''', "LLM81")  # fmt: skip
    clone.kit_lab('''
@lab.experiment
def fails(run: Run):
    """It fails."""
    run.check("no", 1, equals=2)
    run.check("yes", 1, equals=1)
''', "LLM82")  # fmt: skip
    ended = clone.labs("LLM80,LLM81,LLM82")
    assert ended.code == 137, ended
    table = ended.out[ended.out.rindex("memory") :].splitlines()
    rows = {line.split()[0]: line for line in table if line.strip().startswith("LLM8")}
    assert list(rows) == ["LLM80", "LLM81", "LLM82"]
    assert "MiB" in rows["LLM80"]
    assert "ended with 137" in rows["LLM81"]
    assert "1 of 2" in rows["LLM82"] and "a check failed" in rows["LLM82"]


# Progress

PROGRESS = '''
import pathlib

@lab.experiment
def counts(run: Run):
    """It counts."""
    for number in run.progress(range(3), "counting"):
        while number == 1 and not pathlib.Path("go").exists():
            time.sleep(0.05)
'''


GOES_ON = """
@lab.experiment
def counts(run: Run):
    '''It counts.'''
    for number in run.progress(range(7, 9), "counting"):
        time.sleep(0.5)
"""


def test_the_bar_of_what_goes_on_counts_what_was_done_before(clone: Clone) -> None:
    command = (sys.executable, "-m", "labs", clone.kit_lab(GOES_ON))
    running = clone.start(*command, terminal=(24, 80), PYTHONPATH=str(clone.path), TERM="xterm")
    assert running.ended().code == 0
    assert set(re.findall(r"(\d+)/9", running.text)) == {"7", "8", "9"}


@pytest.mark.parametrize("terminal", [None, (24, 80)])
def test_progress_is_seen_while_it_is_made(clone: Clone, terminal) -> None:
    lab = clone.kit_lab(PROGRESS)
    command = (sys.executable, "-m", "labs", lab)
    running = clone.start(*command, terminal=terminal, PYTHONPATH=str(clone.path), TERM="xterm")
    running.wait_for("counting")
    if terminal:
        running.wait_for("1/3")
    (clone.path / "go").touch()
    assert running.ended().code == 0, running.text
    assert ("\x1b" in running.text) == bool(terminal)


# As a script, a module, a notebook


def test_a_lab_runs_as_a_script(clone: Clone) -> None:
    clone.kit_lab(NOTHING)
    words = (sys.executable, "labs/llm90_small.py", "--size", "full", "--precision", "fp32")
    ended = clone.run(*words, PYTHONPATH=str(clone.path))
    assert ended.code == 0, ended
    assert "precision fp32" in ended.out
    assert results_of(folder_of(clone))["environment"]["size"] == "full"


def test_importing_a_lab_does_and_says_nothing(clone: Clone) -> None:
    clone.kit_lab(WHOLE, checks=CHECKS)
    code = "from labs.llm90_small import add; assert add(1, 2) == 3"
    ended = clone.run(sys.executable, "-c", code, PYTHONPATH=str(clone.path))
    assert (ended.code, ended.out, ended.err) == (0, "", ""), ended
    assert not clone.outputs.exists()


NOTEBOOK = """
import sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
import labs
from labs.kit import cells
from labs.course.syllabus import find

shell = InteractiveShell.instance()
shell.user_module.__name__ = "__main__"
sys.modules["__main__"] = shell.user_module
shell.user_ns["__name__"] = "__main__"
for cell in cells.split(find("LLM90")[0].path.read_text("utf-8")):
    if not cell.prose:
        print("CELL", cell.title)
        shell.run_cell(cell.text).raise_error()
"""


def test_as_a_notebook_each_experiment_runs_with_its_cell(clone: Clone) -> None:
    body = WHOLE.replace(
        "@lab.experiment\ndef figures", "# %% 2. More\n@lab.experiment\ndef figures"
    )
    clone.kit_lab(body, checks=CHECKS)
    ended = clone.run(sys.executable, "-c", NOTEBOOK, PYTHONPATH=str(clone.path))
    assert ended.code == 0, ended
    first, second, last = ended.out.split("CELL ")[1:]
    assert first.startswith("1. Preparations") and "It was drawn." in first
    assert second.startswith("2. More") and "the sum" in second
    assert "report.html" in last
    results = results_of(folder_of(clone))
    assert {one["name"] for one in results["experiments"]} == {"parts", "chance", "figures"}
