"""The data of the views: the numbers are those of the models, and the page computes as the labs."""

import base64
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labs.kit.records import View
from labs.kit.report import views
from labs.llm01_inference import lesson as llm01
from labs.llm01_inference import view_data
from labs.llm03_neural_networks import view_data as llm03
from labs.llm04_tokenization import view_data as llm04
from labs.llm04_tokenization.vocabularies import Vocabulary
from labs.llm05a_normalization import view_data as llm05a
from labs.llm05a_normalization.lesson import layer_norm, rms_norm
from labs.llm06_attention import head_patterns
from labs.llm07_lora import view_data as llm07
from labs.llm07_lora.lesson import low_rank
from labs.llm10_llama import view_data as llm10
from tests.browser import page_of

import numpy as np
import pytest
import torch
from torch import Tensor

VOCABULARY = 3000


class Letters:
    """A tokenizer whose tokens are single letters."""

    def __call__(self, text: str) -> Any:
        return type("Encoding", (), {"input_ids": [ord(letter) % VOCABULARY for letter in text]})

    def __len__(self) -> int:
        return VOCABULARY

    def decode(self, i: int) -> str:
        return chr(i)


def logits_of(seed: int) -> Tensor:
    """Return logits as a model gives them: a few large ones, a long tail."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)


def decoded(prompt: dict[str, Any]) -> Tensor:
    """Return the sorted logits that a page reads, minus the largest."""
    return -prompt["step"] * torch.tensor(sorted(levels_in(prompt)), dtype=torch.float64)


def levels_in(prompt: dict[str, Any]) -> list[int]:
    """Return the saved levels by token."""
    return np.frombuffer(base64.b64decode(prompt["levels"]["base64"]), "<u2").tolist()


@contextmanager
def sampler(browser: Any, folder: Path, logits: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """Open a sampler; yield its page and the logits that were saved for it."""
    data, caption, columns, _ = view_data.sampler({"A text": logits}, Letters())
    path = folder / "views" / "sampler.json"
    views.write(data, path)
    page = folder / "page.html"
    page.write_text(views.document(View("sampler", "sampler", caption, columns, [], path)), "utf-8")
    with page_of(browser, page, 1280, "light") as shown:
        yield shown, decoded(json.loads(path.read_text("utf-8"))["prompts"][0])


@contextmanager
def norms_view(browser: Any, folder: Path) -> Iterator[Any]:
    """Open a vector and its norms; yield the page."""
    data, caption, columns, _ = llm05a.norms(layer_norm, rms_norm)
    path = folder / "views" / "norms.json"
    views.write(data, path)
    page = folder / "page.html"
    page.write_text(views.document(View("norms", "norms", caption, columns, [], path)), "utf-8")
    with page_of(browser, page, 1280, "light") as shown:
        yield shown


# LLM01


def test_saved_logits_are_those_of_the_model() -> None:
    logits = logits_of(1)
    data, *_ = view_data.sampler({"A text": logits}, Letters())
    saved = decoded(data["prompts"][0]).softmax(-1)
    ours = logits.sort(descending=True).values.softmax(-1)
    assert len(saved) == VOCABULARY
    assert (saved / ours - 1).abs().max() < 5e-4


def test_logits_that_are_all_equal_are_saved() -> None:
    data, _, _, rows = view_data.sampler({"A text": torch.zeros(40)}, Letters())
    assert decoded(data["prompts"][0]).tolist() == [0.0] * 40
    assert rows[0][3:] == pytest.approx([40.0] * 3)


SETTINGS: list[dict[str, float]] = [
    {},
    {"temperature": 0.2},
    {"temperature": 2.0, "k": 50},
    {"p": 0.9},
    {"temperature": 1.5, "p": 0.6},
    {"part": 0.1},
    {"temperature": 0.7, "k": 200, "p": 0.95, "part": 0.02},
    {"k": 1},
]


def by_the_lab(logits: Tensor, temperature: float, k: int, p: float, part: float) -> Tensor:
    """Return the distribution by LLM01's functions, which a sampler would apply in this order."""
    logits = logits / temperature
    if k:
        logits = llm01.top_k(logits, k)
    if p < 1:
        logits = llm01.top_p(logits, p)
    if part:
        logits = llm01.min_p(logits, part)
    return logits.softmax(-1)


def test_the_page_computes_the_distribution_as_the_lab_does(browser: Any, tmp_path: Path) -> None:
    compute = """([step, levels, settings]) => {
        const { logits } = LabViews.readLogits({ step, levels });
        const found = LabViews.distribution(logits, settings);
        return [found.left, found.entropy, Array.from(found.probabilities)];
    }"""
    data, *_ = view_data.sampler({"A text": logits_of(2)}, Letters())
    prompt = data["prompts"][0]
    with sampler(browser, tmp_path, logits_of(2)) as (page, _):
        for given in SETTINGS:
            settings = {"temperature": 1.0, "k": 0, "p": 1.0, "part": 0.0, **given}
            for_page = {**settings, "k": settings["k"] or VOCABULARY}
            left, entropy, shares = page.evaluate(
                compute, [prompt["step"], prompt["levels"], for_page]
            )
            ours = by_the_lab(decoded(prompt), **settings)  # type: ignore[arg-type]
            kept = ours[ours > 0]
            assert left == len(kept), given
            assert torch.tensor(shares, dtype=torch.float64) == pytest.approx(kept, abs=1e-12), (
                given
            )
            assert entropy == pytest.approx(-(kept * kept.log()).sum().item(), abs=1e-9), given


def test_dragging_shows_what_the_lab_computes(browser: Any, tmp_path: Path) -> None:
    with sampler(browser, tmp_path, logits_of(3)) as (page, logits):
        page.get_by_role("slider", name="temperature").fill("0.5")
        page.get_by_role("slider", name="top-p").fill("0.8")
        ours = by_the_lab(logits, 0.5, 0, 0.8, 0.0)
        spread, left, entropy = page.locator(".view-numbers dd").all_text_contents()
        h = torch.special.entr(ours).sum().item()
        assert int(left) == int((ours > 0).sum())
        assert float(entropy) == pytest.approx(h, abs=6e-4)
        assert float(spread) == pytest.approx(math.exp(h), abs=6e-3)
        first = page.locator(".view-bars tbody tr td:last-child").first.text_content()
        assert float(first.removesuffix(" %")) == pytest.approx(100 * ours[0].item(), abs=0.51)


def test_draws_fall_on_the_tokens_whose_stretch_has_the_number(
    browser: Any, tmp_path: Path
) -> None:
    with sampler(browser, tmp_path, logits_of(4)) as (page, logits):
        page.get_by_role("button", name="Draw 10").click()
        line = logits.softmax(-1).cumsum(-1)
        numbers = page.evaluate("Array.from({ length: 10 }, LabViews.uniform(1))")
        ordered = torch.tensor(sorted(numbers), dtype=torch.float64)
        ranks = torch.searchsorted(line, ordered, right=True).tolist()
        data, *_ = view_data.sampler({"A text": logits_of(4)}, Letters())
        levels = levels_in(data["prompts"][0])
        order = sorted(range(VOCABULARY), key=levels.__getitem__)
        assert max(ranks) > 100, "an unlikely token has a name, too"
        names = [chr(order[rank]) for rank in ranks]
        visible = page.evaluate("names => names.map(LabViews.visible)", names)
        assert page.locator(".view-drawn li").all_text_contents() == visible


def test_a_text_is_coloured_by_the_models_probabilities() -> None:
    ids = [65, 66, 67, 68]
    logits = torch.stack([logits_of(seed) for seed in range(4)])  # (T, V)
    read = view_data.coloured(ids, logits, Letters())
    assert read["texts"] == ["A", "B", "C", "D"]
    assert read["p"][0] is None
    assert read["p"][1:] == pytest.approx(
        [logits[t].softmax(-1)[ids[t + 1]].item() for t in range(3)]
    )
    best = logits[1].softmax(-1).max().item()
    assert read["alternatives"][2][0] == [chr(int(logits[1].argmax())), pytest.approx(best)]


def test_the_table_of_a_coloured_text_has_its_least_likely_tokens() -> None:
    logits = torch.stack([logits_of(seed) for seed in range(8)])
    _, _, _, rows = view_data.reading({"letters": "ABCDEFGH"}, Letters(), lambda _ids: logits)
    shares = [row[2] for row in rows]
    assert len(rows) == view_data.SURPRISES
    assert shares == sorted(shares)


# LLM03


def test_the_page_computes_singular_values_and_rank_as_torch_does(
    browser: Any, tmp_path: Path
) -> None:
    data, caption, columns, _ = llm03.plane({"nothing": [[1.0, 0.0], [0.0, 1.0]]})
    path = tmp_path / "views" / "plane.json"
    views.write(data, path)
    page = tmp_path / "page.html"
    page.write_text(views.document(View("plane", "plane", caption, columns, [], path)), "utf-8")
    matrices = torch.randn(20, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    matrices[0] = 0
    matrices[1] = torch.tensor([[1, 2], [2, 4]])
    with page_of(browser, page, 1280, "light") as shown:
        for matrix in matrices:
            read = shown.evaluate("entries => LabViews.plane(entries)", matrix.flatten().tolist())
            assert read["det"] == pytest.approx(matrix.det().item(), abs=1e-12)
            assert read["rank"] == torch.linalg.matrix_rank(matrix).item()
            values = [read["longest"], read["shortest"]]
            assert values == pytest.approx(torch.linalg.svdvals(matrix).tolist(), abs=1e-12)


# LLM04


def test_tokens_that_are_no_text_are_shown_as_bytes() -> None:
    def pieces(text: str) -> list[bytes]:
        return [bytes([byte]) for byte in text.encode()]

    single = Vocabulary("bytes", "bytes", 256, pieces, lambda text: list(text.encode()))
    data, _, columns, rows = llm04.tokens([single], "né")
    first = data["groups"][-1]["variants"][0]
    assert first == {"name": "bytes", "texts": ["n", "⟨C3⟩", "⟨A9⟩"], "ids": [110, 0xC3, 0xA9]}
    assert columns == ["tokens of", "bytes"]
    assert rows[-1] == ["a mixed sentence", 3]


# LLM05a


@pytest.mark.parametrize("setting", [*llm05a.SETTINGS, (-2.0, -1.5, 0.01), (0.0, 0.0, 1e-5)])
def test_the_page_norms_a_vector_as_the_lab_does(
    browser: Any, tmp_path: Path, setting: tuple[float, float, float]
) -> None:
    scale, shift, eps = setting
    x = scale * torch.tensor(llm05a.VECTOR, dtype=torch.float64) + shift
    ones = torch.ones_like(x)
    with norms_view(browser, tmp_path) as page:
        given = {"scale": scale, "shift": shift, "eps": eps}
        compute = "([vector, given]) => LabViews.norms(vector, given)"
        shown = page.evaluate(compute, [list(llm05a.VECTOR), given])
    assert shown["layer"] == pytest.approx(layer_norm(x, ones, 0 * ones, eps).tolist(), abs=1e-12)
    assert shown["rms"] == pytest.approx(rms_norm(x, ones, eps).tolist(), abs=1e-12)
    assert shown["mean"] == pytest.approx(x.mean().item(), abs=1e-12)


def test_moving_a_slider_changes_the_norms(browser: Any, tmp_path: Path) -> None:
    with norms_view(browser, tmp_path) as page:
        titles = page.locator(".view-title")
        assert titles.all_text_contents()[1:] == ["LayerNorm: size 1", "RMSNorm: size 1"]
        page.get_by_role("slider", name="shift").fill("0")
        page.get_by_role("slider", name="scale").fill("-3")
        assert titles.all_text_contents()[2] == "RMSNorm: size 0.283"
        page.get_by_role("button", name="Reset").click()
        assert titles.all_text_contents()[2] == "RMSNorm: size 1"


# LLM06


@pytest.fixture(scope="module")
def heads() -> tuple[dict[str, Any], list[list[Any]], list[Tensor]]:
    """View a model of two layers and two heads, of which one looks at the previous token."""
    seen: list[Tensor] = []

    class Model:
        device = "cpu"

        def __call__(self, ids: Tensor, **_options: bool) -> Any:
            n = ids.shape[1]
            weights = torch.rand(2, 1, 2, n, n, generator=torch.Generator().manual_seed(n)).tril()
            weights[1, 0, 1] = torch.eye(n).roll(1, 0).tril()
            weights[1, 0, 1, 0, 0] = 1.0
            weights /= weights.sum(-1, keepdim=True)
            seen.append(weights[:, 0])
            return type("Output", (), {"attentions": tuple(weights)})

    data, _, _, best = head_patterns.view(Model(), Letters())
    return data, best, seen


def test_saved_weights_are_the_models(heads: Any) -> None:
    data, _, seen = heads
    for sentence, weights in zip(data["sentences"], seen, strict=True):
        n = len(sentence["words"])
        saved = np.frombuffer(base64.b64decode(sentence["weights"]["base64"]), np.uint8)
        rows, keys = np.tril_indices(n)
        ours = weights.numpy()[:, :, rows, keys]
        assert saved.reshape(2, 2, -1) / 255 == pytest.approx(ours, abs=0.5 / 255 + 1e-6)


def test_a_pattern_finds_the_head_that_has_it(heads: Any) -> None:
    _, best, _ = heads
    name, layer, head, score, _ = best[0]
    assert (name, layer, head) == ("the previous token", 2, 2)
    assert score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pattern", "pairs"),
    [
        ("the previous token", {(2, 1), (3, 2), (4, 3)}),
        ("what followed last time", {(3, 2), (4, 3)}),
        ("the same token", {(3, 1), (4, 2)}),
        ("the first token", {(2, 0), (3, 0), (4, 0)}),
        ("itself", {(2, 2), (3, 3), (4, 4)}),
        ("punctuation", {(3, 2), (4, 2)}),
    ],
)
def test_a_pattern_names_pairs_of_query_and_key(pattern: str, pairs: set[tuple[int, int]]) -> None:
    ids = [5, 7, 9, 7, 9]
    words = ["A", " b", ",", " b", ","]
    found = head_patterns.PATTERNS[pattern][0](ids, words)
    later = [pair for pair in np.argwhere(found).tolist() if pair[0] >= head_patterns.FIRST_QUERY]
    assert {tuple(pair) for pair in later} == pairs


# LLM07


def test_the_page_multiplies_thin_matrices_as_torch_does(browser: Any, tmp_path: Path) -> None:
    targets = {"letters": llm07.letters(), "noise": llm07.noise()}
    data, caption, columns, rows = llm07.view(torch.randn(20, 30), low_rank)
    path = tmp_path / "views" / "low_rank.json"
    views.write(data, path)
    page = tmp_path / "page.html"
    page.write_text(views.document(View("low_rank", "w", caption, columns, [], path)), "utf-8")
    with page_of(browser, page, 1280, "light") as shown:
        for pair, target in zip(data["matrices"], targets.values(), strict=True):
            for rank in (0, 1, 4, 9):
                compute = "([pair, rank]) => LabViews.lowRank(pair, rank)"
                product = torch.tensor(shown.evaluate(compute, [pair, rank]), dtype=torch.float64)
                a, b = low_rank(target, rank)
                torch.testing.assert_close(product, b @ a, rtol=0, atol=1e-12)
    shares = [row[-1] for row in rows if row[0] == "letters"]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


# LLM10


def test_the_curve_has_every_step_and_every_sample() -> None:
    seen = {"1": [3.0, "a"], "2": [2.0, "b\n"]}
    data, _, _, rows = llm10.curve([4.0, 3.5], [0.1, 0.05], seen, {"uniform": 4.2})
    assert data["losses"] == [4.0, 3.5]
    assert data["seen"][1] == {"step": 2, "loss": 2.0, "text": "b\n"}
    assert rows == [[1, 3.0, 0.1, "'a'"], [2, 2.0, 0.05, "'b\\n'"]]
