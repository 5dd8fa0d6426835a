"""LLM10's figures: what they compute, and their layout."""

from itertools import pairwise

from labs.llm10_llama import deeper_figures, figures

import matplotlib.pyplot as plt
import pytest


def test_a_smoothed_loss_is_drawn_at_the_tokens_seen_before_its_middle_step():
    fig = figures.descent([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], {3: 2.0}, {"uniform": 5.5}, 100)
    training, validation = fig.axes[0].lines
    assert training.get_xdata().tolist() == [200, 300]
    assert training.get_ydata().tolist() == pytest.approx([3.0, 2.0])
    assert validation.get_xdata() == [300]
    plt.close(fig)


def test_parts_are_sorted_by_their_cost():
    fig = deeper_figures.parts({"a": 0.2, "b": -0.1, "c": 0.1}, 0.01)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["b", "c", "a"]
    plt.close(fig)


def test_labels_beside_a_curve_do_not_overlap():
    rungs = {"uniform": 5.5, "4-gram": 1.78, "5-gram": 1.66, "trigram": 2.06}
    fig = figures.descent([5.0] * 9, {3: 2.0}, rungs, 100)
    at = {text.get_text(): text.get_position()[1] for text in fig.axes[0].texts}
    assert at["5-gram"] == 1.66
    heights = sorted(at.values())
    assert min(b - a for a, b in pairwise(heights)) >= figures.APART - 1e-9
    plt.close(fig)


def test_the_legend_of_the_descent_covers_nothing():
    rungs = {"uniform": 5.5, "4-gram": 1.78, "5-gram": 1.2}
    fig = figures.descent([5.6, 4, 3, 2, 1.5, 1.3, 1.2, 1.1], {3: 2.0}, rungs, 100)
    fig.draw_without_rendering()
    (ax,) = fig.axes
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1
    title = ax.get_tightbbox().y1
    assert title <= fig.bbox.y1, "and it doesn't push the title out of the figure"
    plt.close(fig)


def test_a_sample_is_drawn_in_lines_and_a_foreign_letter_of_a_latin_text_is_a_dot():
    assert figures.lines_of("\nto be\x00é漢\n" + "no " * 20, latin=True) == [
        "to be·é·",
        ("no " * 14).strip(),
        ("no " * 6).strip(),
    ]
    assert figures.lines_of("漢字", latin=False) == ["漢字"]


def test_the_page_of_samples_ends_with_the_last_one():
    seen = {n: (2.0, f"text {n}") for n in (1, 2, 4, 8, 16, 32)}
    fig = figures.page_of_samples(seen, dict.fromkeys(seen, 0.5))
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert [title.split()[0] for title in titles if title] == ["2", "8", "32"]
    plt.close(fig)
