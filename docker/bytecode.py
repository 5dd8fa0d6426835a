"""Write the byte-code of the modules that the labs import: nothing can do so in a running image.

usage: python docker/bytecode.py MODEL_DIR

Byte-code halves the time of an import. For every module it would need 170 MB, and the labs import a
third of them. So this imports what the labs import, and opens a model and computes with it, because
transformers and torch import much only then. Other modules work without byte-code.
"""

import subprocess
import sys
import sysconfig
from importlib import import_module

IMPORTED = (
    *("accelerate", "accelerate.tracking", "accelerate.utils", "datasets", "huggingface_hub"),
    *("jinja2", "latex2mathml.converter", "markdown_it", "mdit_py_plugins.dollarmath"),
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.pyplot"),
    *("peft", "pyarrow.parquet", "pygments.formatters", "pygments.lexers.python", "regex"),
    *("rich.console", "rich.markdown", "rich.panel", "rich.progress", "rich.rule", "rich.syntax"),
    *("rich.table", "safetensors.torch", "sentencepiece", "tensorboardX", "tiktoken", "tokenizers"),
    *("torch.distributed", "torch.utils.data", "torch.utils.flop_counter"),
    *("transformers.models.bloom.modeling_bloom", "transformers.models.gemma.modeling_gemma"),
)


def import_all(model_dir: str) -> None:
    """Import the modules, and those that a model needs to compute, learn and generate."""
    for name in IMPORTED:
        import_module(name)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    batch = tokenizer("The sun rises", return_tensors="pt")
    model(**batch, labels=batch.input_ids).loss.backward()
    torch.optim.AdamW(model.parameters()).step()
    model.generate(**batch, max_new_tokens=2)


def imported_files() -> list[str]:
    """Return the source files below site-packages of the modules that are imported now."""
    site = sysconfig.get_path("purelib")
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    return sorted(file for file in files if file.startswith(f"{site}/") and file.endswith(".py"))


def main() -> None:
    """Compile the modules, so that Python trusts the byte-code without comparing times."""
    if len(sys.argv) != 2:
        sys.exit("usage: python docker/bytecode.py MODEL_DIR")
    import_all(sys.argv[1])
    files = imported_files()
    # A new process, because the byte-code of one that has imported much depends on what it has.
    options = ["-q", "--workers=0", "--invalidation-mode=unchecked-hash", "-i", "-"]
    command = [sys.executable, "-I", "-m", "compileall", *options]
    subprocess.run(command, input="\n".join(files), text=True, check=True)
    print(f"byte-code: {len(files)} modules")


if __name__ == "__main__":
    main()
