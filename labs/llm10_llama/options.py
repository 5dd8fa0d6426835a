"""The options of LLM10 and LLM10+: another model, another text, merges, steps."""

from common.options import positive
from labs.kit import Lab, assets
from labs.llm10_llama.corpus import merge_count
from labs.llm10_llama.text_file import corpus_path


def declare_options(lab: Lab) -> None:
    """Declare --model, --corpus, --merges and --steps for one of the two sittings."""
    lab.argument("--model", help="a Llama instead of SmolLM2: a folder, or a hub id")
    lab.before_run(assets.check_model)
    lab.argument(
        "--corpus", type=corpus_path, metavar="FILE", help="a text in UTF-8 instead of Shakespeare"
    )
    lab.argument(
        "--merges", type=merge_count, default=0, metavar="N", help="of LLM04's BPE; default: 0"
    )
    lab.argument("--steps", type=positive, metavar="N", help="training steps; default: by the size")
