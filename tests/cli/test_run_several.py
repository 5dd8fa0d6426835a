"""Several labs, one after the other, and the table at the end."""

from tests.conftest import Clone
from tests.kit.every_finding import NOTHING


def test_several_labs_end_in_one_table_even_if_one_is_killed(clone: Clone) -> None:
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
    assert "exit code 137" in rows["LLM81"]
    assert "1 of 2" in rows["LLM82"] and "a check failed" in rows["LLM82"]
