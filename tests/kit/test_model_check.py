"""Models of somebody else: with code, with a pickle, absurd, incomplete, or without end."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card
from labs.kit import model_check
from labs.kit.model_check import require_safe
from labs.kit.sandbox.limits import Limits

import pytest
from safetensors.torch import load_file, save_file


@pytest.fixture
def model(labs_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the small model, which a test makes hostile; the limits are lower."""
    limits = Limits(cpu_seconds=3, seconds=60.0, memory=2**28)
    monkeypatch.setattr(model_check, "LIMITS", limits)
    shutil.copytree(labs_home / "assets" / "glass", tmp_path / "model")
    return tmp_path / "model"


def refusal(model: Path) -> str:
    with pytest.raises(Card, match="The model can't be opened") as caught:
        require_safe(str(model))
    assert caught.value.code == WRONG_USAGE
    return caught.value.why


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_complete_model_of_data_is_opened(model: Path) -> None:
    assert require_safe(str(model)) == str(model)


class Explosive:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_beside_a_decoy_is_never_opened(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").rename(model / "decoy.safetensors")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Explosive(tmp_path / "exploded")))
    assert "has no *.safetensors under the name model.safetensors" in refusal(model)
    assert not (tmp_path / "exploded").exists()


def test_a_configuration_that_names_a_pickle_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Explosive(tmp_path / "exploded")))
    change(model / "config.json", transformers_weights="pytorch_model.bin")
    assert "names weights that aren't safetensors: 'pytorch_model.bin'" in refusal(model)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_is_refused(model: Path, name: str) -> None:
    code = model / "code.py"
    code.write_text("raise SystemExit('the code of a model was run')")
    change(model / name, auto_map={"AutoModelForCausalLM": "code.Model", "AutoTokenizer": "code.T"})
    assert "has auto_map: the model brings code, and labs don't run it" in refusal(model)


def test_an_adapter_that_names_another_model_is_refused(model: Path) -> None:
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "adapter_config.json, which names another model" in refusal(model)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", (2**23).to_bytes(8, "little") + b"{", b"", b"short"],
)
def test_an_absurd_header_is_refused(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    assert "isn't safetensors: its header claims" in refusal(model)


def test_weights_that_are_cut_short_are_refused(model: Path) -> None:
    with (model / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    assert "SafetensorError" in refusal(model)


def test_a_huge_tokenizer_is_refused_before_it_is_opened(model: Path) -> None:
    with (model / "tokenizer.json").open("r+b") as file:
        file.truncate(2**30)  # a sparse file
    assert "tokenizer.json has 1,074 MB; at most 67 MB are opened" in refusal(model)


def test_a_tokenizer_that_takes_too_much_memory_is_refused(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"] += [
        {**tokenizer["added_tokens"][0], "id": 2000 + i, "content": f"<{i}>" * 40, "special": False}
        for i in range(60_000)
    ]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    why = refusal(model)
    assert "took more than" in why or "Opening it ended a child process" in why or "stopped" in why


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LARGE = (
    "{% set ns = namespace(x='x' * 99999) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}"
)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (LOOP, "does its chat template loop?"),
        (f"{LARGE}{{% endfor %}}", "took more than"),
    ],
)
def test_a_chat_template_without_end_is_refused(model: Path, template: str, why: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    assert why in refusal(model)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception('a system message is needed') }}",
        "{{ unknown.member }}",
    ],
)
def test_a_chat_template_that_fails_is_left_to_the_lab(model: Path, template: str) -> None:
    """jinja's sandbox refuses Python's internals."""
    (model / "chat_template.jinja").write_text(template)
    assert require_safe(str(model)) == str(model)


def test_weights_that_are_missing_are_not_replaced_by_random_ones(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "lack 1 of its weights, such as model.layers.1.mlp.up_proj.weight" in refusal(model)
    save_file({}, model / "model.safetensors", {"format": "pt"})
    assert "of its weights, such as" in refusal(model)


@pytest.mark.parametrize("text", ["{", "[]", "7", "[" * 100_000, "\udcff"])
def test_a_configuration_that_is_not_an_object_is_refused(model: Path, text: str) -> None:
    (model / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    assert "config.json isn't a JSON object" in refusal(model)


@pytest.mark.parametrize(
    "values",
    [{"model_type": "odd"}, {"model_type": ["llama"]}, {"model_type": None}, {"model_type": "vit"}],
)
def test_an_unknown_type_is_refused(model: Path, values: dict[str, Any]) -> None:
    change(model / "config.json", **values)
    assert "model type" in (why := refusal(model)) or "doesn't predict the next token" in why


@pytest.mark.parametrize("values", [{"hidden_size": 10**9}, {"hidden_size": "large"}])
def test_an_absurd_configuration_is_refused(model: Path, values: dict[str, Any]) -> None:
    change(model / "config.json", **values)
    assert refusal(model)
