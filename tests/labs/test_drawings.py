"""LLM10's figures: what is computed in them."""

from labs import drawings

import matplotlib.pyplot as plt
import pytest


def test_a_smoothed_loss_stands_over_the_tokens_seen_before_its_middle_step():
    fig = drawings.descent([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], {3: 2.0}, {"uniform": 5.5}, 100)
    training, validation = fig.axes[0].lines
    assert training.get_xdata().tolist() == [200, 300]
    assert training.get_ydata().tolist() == pytest.approx([3.0, 2.0])
    assert validation.get_xdata() == [300]
    plt.close(fig)


def test_parts_are_in_the_order_of_their_cost():
    fig = drawings.parts({"a": 0.2, "b": -0.1, "c": 0.1}, 0.01)
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["b", "c", "a"]
    plt.close(fig)
