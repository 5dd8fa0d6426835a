"""Models are opened from safetensors alone, and a damaged or foreign folder is a card."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.cards import WRONG_USAGE, Card
from labs.kit.chat.conversation import Conversation
from labs.kit.chat.open_model import ChatModel, open_model
from labs.kit.chat.reply import StopButton, generate
from labs.kit.chat.sampling import Sampling
from labs.kit.chat.saved_models import SavedModel
from labs.kit.chat.session import Session
from tests.kit.chat.small_models import TEMPLATE, WORDS, save_adapter, save_model

import pytest

GREEDY = Sampling(temperature=0, max_tokens=12)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chat model, a base model, and an adapter of the chat model."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "chat", TEMPLATE)
    save_model(folder / "base")
    save_adapter(folder / "adapter", folder / "chat")
    return folder


def reply(model: ChatModel, sampling: Sampling = GREEDY) -> str:
    pieces: list[str] = []
    prompt = Conversation(model).prompt("why ?", sampling.max_tokens)
    text = generate(model, prompt, sampling, pieces.append, StopButton()).text
    assert "".join(pieces) == text
    return text


def test_the_reply_is_the_librarys(saved: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = open_model(SavedModel(saved / "base"))
    assert not model.is_chat_model
    tokenizer = AutoTokenizer.from_pretrained(saved / "base")
    ids = tokenizer("why ?", return_tensors="pt").input_ids
    theirs = AutoModelForCausalLM.from_pretrained(saved / "base", dtype=model.model.dtype)
    written = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )
    assert (
        reply(model).split() == tokenizer.decode(written[0, 2:], skip_special_tokens=True).split()
    )


def test_sampling_settings_reach_the_library(saved: Path) -> None:
    import torch

    model = open_model(SavedModel(saved / "chat"))
    assert model.is_chat_model
    greedy = reply(model)
    one = Sampling(temperature=5.0, top_k=1, max_tokens=12)
    assert reply(model, one) == greedy, "the most probable token alone"
    assert reply(model, Sampling(temperature=5.0, top_p=0.01, max_tokens=12)) == greedy
    assert reply(model, Sampling(temperature=5.0, min_p=1, max_tokens=12)) == greedy
    torch.manual_seed(0)
    assert reply(model, Sampling(temperature=10.0, max_tokens=12)) != greedy
    assert len(reply(model, Sampling(temperature=0, max_tokens=3)).split()) <= 3


def test_settings_that_a_folder_suggests_do_not_count(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "chat", tmp_path / "model")
    suggested = {"max_new_tokens": 1, "do_sample": False, "suppress_tokens": list(range(9))}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(suggested))
    assert reply(open_model(SavedModel(tmp_path / "model"))) == reply(
        open_model(SavedModel(saved / "chat"))
    )


def test_the_stop_button_ends_a_reply(saved: Path) -> None:
    model = open_model(SavedModel(saved / "base"))
    button = StopButton()
    pieces: list[str] = []

    def write(text: str) -> None:
        pieces.append(text)
        button.pressed = len(pieces) >= 3

    prompt = Conversation(model).prompt("why ?", 40)
    written = generate(model, prompt, Sampling(temperature=0, max_tokens=40), write, button)
    assert 3 <= written.tokens < 10


def test_an_adapter_changes_its_base(saved: Path) -> None:
    adapted = open_model(SavedModel(saved / "adapter"))
    assert adapted.is_chat_model, "the tokenizer is the base's"
    assert reply(adapted) != reply(open_model(SavedModel(saved / "chat")))


def test_an_adapter_of_an_embedded_model_finds_it_by_name(
    saved: Path, tmp_path: Path, labs_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_HOME", str(labs_home))
    shutil.copytree(saved / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path="/other/glass")
    with pytest.raises(Card) as refused:  # of another shape: it was the right base that was opened
        open_model(SavedModel(tmp_path / "adapter"))
    assert "size mismatch" in refused.value.why


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def more_words(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"word{i}": len(WORDS) + i for i in range(5)}
    path.write_text(json.dumps(content))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut weights": (cut_weights, "SafetensorError"),
    "a missing weight": (drop_a_weight, "model.norm.weight"),
    "no configuration": (lambda f: (f / "config.json").write_text("{}"), "model type"),
    "configuration cut": (lambda f: (f / "config.json").write_text("{"), "JSON"),
    "another shape": (lambda f: change(f / "config.json", hidden_size=32), "mismatch|size"),
    "a model with code": (lambda f: change(f / "config.json", model_type="mine"), "own code"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "Error"),
    "another tokenizer": (more_words, "more tokens than the model"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_a_card(saved: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved / "chat", folder)
    spoil, why = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(Card, match="opened") as refused:
        open_model(SavedModel(folder))
    assert refused.value.code == WRONG_USAGE
    assert re.search(why, refused.value.why), refused.value.why


@pytest.mark.parametrize(
    "values, why",
    [
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"use_dora": True}, "sets use_dora"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"megatron_config": {}, "megatron_core": "outputs.evil"}, "sets megatron_core"),
        ({"base_model_name_or_path": "/gone/model"}, "'/gone/model', which is not a folder"),
        ({"target_modules": ["nowhere"]}, "nowhere"),
    ],
)
def test_an_adapter_with_unknown_settings_is_a_card(
    saved: Path, tmp_path: Path, values: dict[str, object], why: str
) -> None:
    shutil.copytree(saved / "adapter", tmp_path / "adapter")
    change(tmp_path / "adapter" / "adapter_config.json", **values)
    with pytest.raises(Card) as refused:
        open_model(SavedModel(tmp_path / "adapter"))
    assert why in refused.value.why


def test_code_in_a_folder_is_never_run(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved / "chat", folder)
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import LlamaForCausalLM as Mine\n"
    (folder / "mine.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    reply(open_model(SavedModel(folder)))
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "mine.Mine"})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    with suppress(Card):
        reply(open_model(SavedModel(folder)))
    assert not ran.exists()


@pytest.mark.parametrize("asked", [None, True, False])
def test_a_chat_starts_as_the_folder_asks_and_a_command_wins(
    saved: Path, tmp_path: Path, asked: bool | None
) -> None:
    folder = shutil.copytree(saved / "chat", tmp_path / "chat")
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    changed = config if asked is None else {**config, "do_sample": asked}
    (folder / "generation_config.json").write_text(json.dumps(changed))
    session = Session(open_model(SavedModel(folder)))
    usual = Sampling().temperature
    assert session.sampling.temperature == (0 if asked is False else usual)
    session.sampling = session.sampling.changed("temperature", "1.5")
    assert session.sampling.generation_options()["temperature"] == 1.5
