"""A sheet whose exercises pass, and whose experiments attack: what they reach, and what they don't.

The exercise runs the attack in the experiments only: there the arguments are 3 and 3.
"""

import json
import os
import time
from pathlib import Path

from labs.kit.sandbox import files, landlock
from tests.conftest import Clone, Ended
from tests.small_lab import SHEET, write_next

import pytest

LANDLOCK = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
ATTACK = """import os, socket, subprocess, sys
    from pathlib import Path
    def attempt(name, action):
        try:
            action()
            print(name, "worked")
        except (OSError, subprocess.CalledProcessError) as error:
            print(name, "refused")
    if a == b == 3:
        home = Path({home!r})
        attempt("read", lambda: (home / "key").read_text())
        link = Path(os.environ["TMPDIR"]) / "link"
        link.symlink_to(home / "key")
        attempt("link", link.read_text)
        attempt("list", lambda: list(home.iterdir()))
        attempt("bashrc", lambda: (home / ".bashrc").write_text("owned"))
        attempt("chmod", lambda: (home / ".bashrc").chmod(0o777))
        attempt("checks", lambda: Path("labs/llm90_small/checks.py").write_text(""))
        attempt("progress", lambda: Path("work/progress/LLM90.json").write_text("{{}}"))
        attempt("sheet", lambda: Path(__file__).write_text(""))
        attempt("shell", lambda: subprocess.run(["touch", home / "new"], check=True))
        attempt("memory", lambda: Path(f"/proc/{{os.getppid()}}/mem").read_bytes())
        attempt("kill", lambda: os.kill(os.getppid(), 9))
        attempt("engine", lambda: socket.socket(socket.AF_UNIX))
        attempt("outputs", lambda: Path("outputs/mine").write_text("x"))
        print("\\x1b]0;a title\\x07\\x1b[6nplain")
        print("token", os.environ.get("HF_TOKEN"), os.environ["HOME"] == str(home))
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                Path("outputs/daemon").write_text(str(os.getpid()))
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(4000)"])
            os._exit(0)
    return a + b"""
REFUSED = (
    "read",
    "link",
    "list",
    "bashrc",
    "chmod",
    "checks",
    "progress",
    "sheet",
    "shell",
    "memory",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("secret")
    (tmp_path / ".bashrc").write_text("# mine\n")
    return tmp_path


def attacked(sheet: Clone, home: Path) -> Ended:
    write_next(sheet, ATTACK.format(home=str(home)))
    return sheet.labs("check", "LLM90", HOME=str(home), HF_TOKEN="hf_secret")


@LANDLOCK
def test_the_experiments_of_a_sheet_change_outputs_and_nothing_else(
    sheet: Clone, home: Path
) -> None:
    text = (sheet.path / SHEET).read_text()
    checks = (sheet.path / "labs" / "llm90_small" / "checks.py").read_text()
    ended = attacked(sheet, home)
    for name in REFUSED:
        assert f"{name} refused\n" in ended.out, ended
    if not files.has_gpu():
        assert "engine refused\n" in ended.out, ended
    if landlock.version() >= 6:
        assert "kill refused\n" in ended.out, ended
    assert "outputs worked\n" in ended.out, ended
    assert "token None False\n" in ended.out, ended
    assert "plain\n" in ended.out and "\x1b" not in ended.out, ended
    assert "They come to 6." in ended.out, "the experiment goes on"
    assert (home / ".bashrc").read_text() == "# mine\n"
    assert not (home / "new").exists()
    assert (sheet.path / SHEET).read_text() != text, "the learner's own change"
    assert (sheet.path / "labs" / "llm90_small" / "checks.py").read_text() == checks
    record = json.loads((sheet.path / "work" / "progress" / "LLM90.json").read_text())
    assert (record["best"]["passed"], record["best"]["of"]) == (3, 3)
    daemon = int((sheet.outputs / "daemon").read_text())
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{daemon}") and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.05)
    assert not Path(f"/proc/{daemon}").exists(), "a daemon was left"


@pytest.mark.parametrize("results", ["[" * 100_000, '{"experiments": 7}', '{"experiments": []}'])
def test_forged_results_end_in_no_traceback(sheet: Clone, results: str) -> None:
    forge = f"""import pathlib
    class Done(BaseException): pass
    folder = pathlib.Path("outputs/LLM90/9999")
    if a == b == 3:
        folder.mkdir()
        (folder / "results.json").write_text({results!r})
        import os
        os._exit(0)
    return a + b"""
    write_next(sheet, forge)
    ended = sheet.labs("check", "LLM90")
    assert ended.code == 1, ended
    assert "Traceback" not in ended.out + ended.err
    record = json.loads((sheet.path / "work" / "progress" / "LLM90.json").read_text())
    assert record["best"] == {}


def test_a_sheet_named_on_the_command_line_is_restricted_too(sheet: Clone, home: Path) -> None:
    if not landlock.version():
        pytest.skip("this kernel has no Landlock")
    write_next(sheet, ATTACK.format(home=str(home)))
    ended = sheet.labs("LLM90", "--sheet", SHEET, "--seed", "3", "--", "--word", "mine")
    assert ended.code == 0, ended
    assert "bashrc refused\n" in ended.out, ended
    (results,) = sheet.outputs.glob("LLM90/*/results.json")
    environment = json.loads(results.read_text())["environment"]
    assert environment["seed"] == 3
    assert environment["options"] == {"word": "mine"}
    assert (sheet.path / "work" / "progress" / "LLM90.json").exists()


def test_a_signal_of_a_sheet_becomes_the_exit_code_of_a_shell(sheet: Clone) -> None:
    write_next(sheet, "import os\n    if a == b == 3: os.abort()\n    return a + b")
    ended = sheet.labs("LLM90", "--sheet", SHEET)
    assert ended.code == 134, ended
    checked = sheet.labs("check", "LLM90")
    assert checked.code == 1, checked
    assert "crashed Python itself (SIGABRT)" in checked.err
