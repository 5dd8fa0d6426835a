"""The order in which a matrix lies in memory."""

import copy
from typing import Any

from torch import nn


def column_major(model: Any) -> Any:
    """Copy a model, its matrices column after column; the embedding, read by rows, is unchanged."""
    model = copy.deepcopy(model)
    rows = model.embed_tokens.weight.detach().clone()  # tied, it would change with the last matrix
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach().mT.contiguous().mT)
    model.embed_tokens.weight = nn.Parameter(rows)
    return model
