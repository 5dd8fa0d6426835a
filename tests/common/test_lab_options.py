"""The options that a lab's package declares are data: a launcher without torch knows them."""

import json
from typing import Any

from common import lab_options
from common.cards import Card
from common.options import Settings
from common.syllabus import find
from tests.conftest import Clone

import pytest


@pytest.mark.parametrize(
    ("words", "what", "why"),
    [
        (["--nodes", "2"], "LLM10 has no option --nodes.", "Its own options are --model, --corpus"),
        (["--corpsu=f"], "LLM10 has no option --corpsu.", "There is --corpus."),
        (["--steps", "0"], "--steps can't be '0'.", "--steps is a positive integer."),
        (["--merges", "65280"], "--merges can't be '65280'.", "an integer from 0 to 65,279."),
        (["--merges"], "The options can't be parsed.", "expected one argument"),
    ],
)
def test_a_wrong_option_is_a_card(words: list[str], what: str, why: str) -> None:
    with pytest.raises(Card) as raised:
        lab_options.check(find("LLM10"), words, Settings())
    assert raised.value.what == what and why in raised.value.why
    assert raised.value.fix.startswith("invoke lab LLM10 -- --help")


def test_the_options_that_name_a_file_are_known_of_several_labs() -> None:
    assert lab_options.file_flags(find("1,8,10")) == {"--prompts", "--dataset", "--corpus"}
    assert lab_options.file_flags(find("2,3")) == set()


def test_an_option_is_added_in_one_file(clone: Clone) -> None:
    """Its declaration is enough for the help, a typo's card, the lab and the command to repeat."""
    lab = clone.kit_lab('''
@lab.experiment
def arrives(run: Run):
    """An option arrives."""
    run.check("it", vars(run.options).get("tiny_rows"), equals=7, decides=True)
''')
    assert clone.labs(lab, "--tiny-rows", "7").code == 2
    package = clone.lab_folder(lab) / "__init__.py"
    added = '    tiny_rows: int = option("rows of a batch", 3, type=int)\n'
    text = package.read_text().replace('"none")\n', f'"none")\n{added}')
    package.write_text(text)
    assert "rows of a batch" in clone.invoke("lab", lab, "--", "--help").out
    typo = clone.invoke("lab", lab, "--", "--tiny-row", "7")
    assert "why: There is --tiny-rows." in typo.err
    ended = clone.labs(lab, "--tiny-rows", "7")
    assert ended.code == 0, ended
    (results,) = (clone.outputs / lab).glob("*/results.json")
    recorded: Any = json.loads(results.read_text())
    assert recorded["commands"]["arrives"].endswith(" -- --tiny-rows 7")
    assert recorded["environment"]["options"] == {"word": "none", "tiny_rows": "7"}
