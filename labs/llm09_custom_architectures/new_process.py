"""Open a saved model in a new process, before and after it imports the classes of LLM09+."""

import json
from typing import Any, NamedTuple

from labs.kit.measure import in_new_process

from torch import Tensor

STRANGER = """
import json, sys, torch
from transformers import AutoModelForCausalLM
folder, ids = sys.argv[1], torch.tensor(json.loads(sys.argv[2]))
try:
    AutoModelForCausalLM.from_pretrained(folder)
    refused = "nothing"
except Exception as error:
    refused = type(error).__name__
import labs.llm09_custom_architectures.deeper
model = AutoModelForCausalLM.from_pretrained(folder)
how = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
written = model.generate(ids, max_new_tokens=6, **how)
with torch.no_grad():
    print(json.dumps([refused, type(model).__name__, model(ids).logits.tolist(), written.tolist()]))
"""


class Opened(NamedTuple):
    """What a new process reports.

    Attributes:
        refused: the error of opening the model without LLM09+'s classes, or "nothing".
        kind: the model's class, opened with them.
        logits: of the tokens, (B, T, V).
        written: the tokens and six generated ones, (B, T + 6).
    """

    refused: str
    kind: str
    logits: list[Any]
    written: list[list[int]]


def open_in_new_process(folder: str, ids: Tensor) -> Opened:
    """Open the model in `folder` there, and run it on the tokens `ids` (B, T)."""
    return Opened(*in_new_process(STRANGER, folder, json.dumps(ids.tolist())))
