"""Save a trained model so that others can open it: weights, tokenizer, model card."""

import copy
import json
import math
from pathlib import Path
from typing import Any

from labs.kit import Run
from labs.kit.model_files import write_card
from labs.llm10_llama.conversion import to_transformers
from labs.llm10_llama.corpus import Text, prompt_of, tokenizer_of
from labs.llm10_llama.ladder import judged_on, nats, rungs
from labs.llm10_llama.parts import parameters
from labs.llm10_llama.training import sizes

TEMPLATE = Path(__file__).with_name("model_card.md")


def facts(run: Run, model: Any, text: Text) -> dict[str, Any]:
    """Return what the card says of a run's model: its loss, its recipe, the trigrams' loss."""
    loss = nats(model, judged_on(run), model.config.context)
    return {
        "loss": loss,
        "bits": loss / math.log(2) / text.bytes_per_token,
        "judged": len(judged_on(run)) - 1,
        "trigram": rungs(run)["trigram"],
        "seed": run.seed,
        **vars(sizes(run)[1]),
    }


def save(model: Any, text: Text, folder: Path, **facts: Any) -> None:
    """Write the model, its tokenizer and its card."""
    to_transformers(copy.deepcopy(model).cpu()).save_pretrained(folder)
    tokenizer_of(text).save_pretrained(folder)
    card = {
        **vars(model.config),
        **facts,
        "parameters": parameters(model),
        "kind": f"bytes and {len(text.merges):,} merges" if text.merges else "bytes",
        "text": text.name,
        "sha256": text.sha256,
        "prompt": json.dumps(prompt_of(text), ensure_ascii=False),  # quoted, as in Python
    }
    write_card(folder, TEMPLATE.read_text(encoding="utf-8").format(**card))
