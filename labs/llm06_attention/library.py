"""Copy the weights of torch's multi-head attention to LLM06's."""

from typing import Any

from torch import nn


def copy_weights(theirs: nn.MultiheadAttention, ours: Any) -> None:
    """Give both modules the same weights, and biases that aren't 0.

    torch stacks the three projections in one matrix. Its biases start as 0, which would prove
    nothing.
    """
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    weights = theirs.in_proj_weight.chunk(3)
    biases = theirs.in_proj_bias.chunk(3)
    for i, projection in enumerate((ours.q_proj, ours.k_proj, ours.v_proj)):
        projection.load_state_dict({"weight": weights[i], "bias": biases[i]})
    ours.o_proj.load_state_dict(theirs.out_proj.state_dict())
