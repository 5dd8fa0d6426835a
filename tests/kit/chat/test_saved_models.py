"""The models that can be talked to: found by folder, by run and by lab."""

import json
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from labs.kit.chat.saved_models import SavedModel, choose, saved_below

import pytest


def make(outputs: Path, name: str, *files: str) -> Path:
    """Make a folder with files that a model has; only their names matter here."""
    folder = outputs / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("{}")
    return folder


MODEL = ("config.json", "model.safetensors")
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def test_the_newest_run_comes_first_and_other_folders_are_no_models(tmp_path: Path) -> None:
    old = make(tmp_path, "LLM10/2026-01-01_00-00-00/model", *MODEL)
    new = make(tmp_path, "LLM07/2026-02-01_00-00-00/adapter", *ADAPTER)
    make(tmp_path, "LLM10/2026-03-01_00-00-00/figures", "loss.svg")
    make(tmp_path, "LLM10/2026-03-01_00-00-00/pickled", "config.json", "pytorch_model.bin")
    make(tmp_path, "LLM10/checkpoints/step-00000010", "model.safetensors")
    assert saved_below(tmp_path) == [SavedModel(new), SavedModel(old)]
    assert [model.kind for model in saved_below(tmp_path)] == ["adapter", "base model"]


def test_a_model_with_a_template_is_a_chat_model(tmp_path: Path) -> None:
    beside = make(tmp_path, "beside", *MODEL, "chat_template.jinja")
    inside = make(tmp_path, "inside", *MODEL)
    (inside / "tokenizer_config.json").write_text(json.dumps({"chat_template": "…"}))
    damaged = make(tmp_path, "damaged", *MODEL)
    (damaged / "tokenizer_config.json").write_text("[")
    kinds = [SavedModel(folder).kind for folder in (beside, inside, damaged)]
    assert kinds == ["chat model", "chat model", "base model"]


@pytest.mark.parametrize("name", ["LLM10", "llm10", "10"])
def test_a_lab_means_its_newest_model(tmp_path: Path, name: str) -> None:
    make(tmp_path, "LLM10/2026-01-01_00-00-00/model", *MODEL)
    newest = make(tmp_path, "LLM10/2026-01-02_00-00-00/model", *MODEL)
    make(tmp_path, "LLM07/2026-02-01_00-00-00/adapter", *ADAPTER)
    assert choose(name, tmp_path) == SavedModel(newest)
    deeper = make(tmp_path, "LLM10+/2026-01-03_00-00-00/chat", *MODEL)
    assert choose(name, tmp_path) == choose("LLM10+", tmp_path) == SavedModel(deeper)
    later = make(tmp_path, "LLM10/2026-01-04_00-00-00/model", *MODEL)
    assert choose(name, tmp_path) == SavedModel(later)
    assert choose("LLM10+", tmp_path) == SavedModel(deeper)


def test_a_run_with_one_model_means_that_model(tmp_path: Path) -> None:
    model = make(tmp_path, "LLM10/2026-01-01_00-00-00/model", *MODEL)
    assert choose(str(model.parent), tmp_path) == SavedModel(model)
    assert choose(str(model), tmp_path) == SavedModel(model)
    assert choose("", tmp_path) == SavedModel()


@pytest.mark.parametrize(
    "target, what",
    [
        ("LLM10", "LLM10 has saved no model"),
        ("LLM77", "There is no lab called 'LLM77'"),
        ("all", "A chat needs one model"),
        ("outputs/LLM10/gone", "There is no folder"),
        ("./\x1b[31mred", "There is no folder ./[31mred."),
    ],
)
def test_what_cannot_be_found_is_a_card(tmp_path: Path, target: str, what: str) -> None:
    with pytest.raises(Card) as refused:
        choose(target, tmp_path)
    assert refused.value.what.startswith(what)
    assert "none" not in refused.value.why
    assert refused.value.code == WRONG_USAGE


def test_a_folder_without_safetensors_is_a_card(tmp_path: Path) -> None:
    folder = make(tmp_path, "pickled", "config.json", "pytorch_model.bin")
    with pytest.raises(Card, match="is not a model"):
        choose(str(folder), tmp_path)


def test_a_run_with_two_models_names_them(tmp_path: Path) -> None:
    make(tmp_path, "run/one", *MODEL)
    make(tmp_path, "run/two", *MODEL)
    with pytest.raises(Card, match="is not a model") as refused:
        choose(str(tmp_path / "run"), tmp_path)
    assert "one, two" in refused.value.why


def test_the_title_is_that_of_the_card_without_control_characters(tmp_path: Path) -> None:
    model = make(tmp_path, "LLM08/2026-01-01_00-00-00/model", *MODEL)
    assert SavedModel(model).title == ""
    (model / "README.md").write_text("---\na: b\n---\n# SmolLM2, \x1b[31mtrained on faq.csv\n# x\n")
    assert SavedModel(model).title == "SmolLM2, [31mtrained on faq.csv"
    (model / "README.md").write_text("# " + "x" * 5000)
    assert len(SavedModel(model).title) == 120
    (model / "README.md").write_bytes(b"# \xff")
    assert SavedModel(model).title == ""
