"""Open a model for a chat: from safetensors alone, without running any code of its folder."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cards import WRONG_USAGE, Card
from labs.kit import assets
from labs.kit.chat.plain import plain
from labs.kit.chat.saved_models import ADAPTER, LIST, SavedModel, read_json
from labs.kit.run.devices import choose_precision, describe_device, make_accelerator

import torch

MAX_REASON = 300  # characters of an error
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DEFAULT_CONTEXT = 1024  # tokens, for a configuration that doesn't say
_EMBEDDED = {"smollm2": assets.smollm2, "glass": assets.glass}
# The keys of an adapter's configuration that are passed on. All others must have peft's defaults:
# some change what the adapter computes, and one names a Python module to import.
_ADAPTER_KEYS = (
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
)
_NOT_COMPUTED = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}


@dataclass(frozen=True)
class ChatModel:
    """A model that is ready to generate.

    Attributes:
        model: the model of transformers, on its device.
        tokenizer: its tokenizer.
        context: the most tokens that it reads, prompt and reply together.
        name: what to call it.
        device: the name of its device.
        precision: of its weights: fp32, bf16 or fp16.
        greedy: whether its folder asks for the most probable token, without sampling.
    """

    model: Any
    tokenizer: Any
    context: int
    name: str
    device: str
    precision: str
    greedy: bool = False

    @property
    def is_chat_model(self) -> bool:
        """Whether it was trained on conversations; a base model continues text."""
        return bool(self.tokenizer.chat_template)

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Base:
    """A model without an adapter.

    Attributes:
        folder: its folder.
        embedded: whether it belongs to the image or the environment, and so can be trusted.
    """

    folder: Path
    embedded: bool = False


def open_model(saved: SavedModel) -> ChatModel:
    """Open a model and place it on this machine's device, through Accelerate.

    Raises:
        Card: if the folder is damaged, or the model can't be opened safely.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    precision, _ = choose_precision("auto")
    accelerator = make_accelerator("fp32")  # places the model; the weights have the precision
    folder = saved.folder
    base = _base(saved)
    model, tokenizer = _opened(base.folder, lambda: _load(base, _DTYPES[precision]))
    if folder is not None and saved.is_adapter:
        model = _opened(folder, lambda: _with_adapter(model, folder))
    greedy = model.generation_config.do_sample is False  # None: its folder doesn't say
    model = accelerator.prepare_model(model.eval(), evaluation_mode=True)
    name = "SmolLM2-135M-Instruct" if folder is None else plain(str(folder))
    device = describe_device(accelerator.device)
    return ChatModel(model, tokenizer, _context(model), name, device, precision, greedy)


def _opened(folder: Path, load: Callable[[], Any]) -> Any:
    """Call `load`. A folder of unknown origin can be wrong in any way: each of them is a card."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a library, about another one
            return load()
    except (Card, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise _damaged(folder, f"{type(error).__name__}: {words[:MAX_REASON]}") from error


def _damaged(folder: Path, why: str) -> Card:
    what = f"The model in {plain(str(folder))} can't be opened."
    return Card(what, plain(why), f"another one: {LIST}", WRONG_USAGE)


def _load(base: Base, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return a model without an adapter, and its tokenizer.

    Raises:
        Card: if it isn't data alone, or lacks a weight.
    """
    from transformers import AutoModelForCausalLM

    folder = base.folder
    if not base.embedded:
        assets.pretrained(str(folder))  # raises for anything but safetensors of a known type
    tokenizer = _tokenizer(folder)
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    opened: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, **options
    )
    model, report = opened
    missing: list[str] = sorted(report["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise _damaged(folder, f"Its weights lack {missing[0]}, and {len(missing) - 1} more.")
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise _damaged(folder, "Its tokenizer has more tokens than the model has embeddings.")
    return model, tokenizer


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _base(saved: SavedModel) -> Base:
    """Return the model itself, or the one that an adapter was trained on.

    An adapter has the path of its base on the machine that trained it. An embedded model is found
    by its name.

    Raises:
        Card: if the base isn't on this machine.
    """
    folder = saved.folder
    if folder is None:
        return Base(assets.smollm2(), embedded=True)
    if not saved.is_adapter:
        return Base(folder)
    recorded = str(read_json(folder / ADAPTER).get("base_model_name_or_path") or "")
    name = Path(recorded).name.lower()
    if name in _EMBEDDED:
        return Base(_EMBEDDED[name](), embedded=True)
    if recorded and Path(recorded).is_dir():
        return Base(Path(recorded))
    why = f"It is an adapter of {recorded!r}, which is not a folder on this machine."
    raise _damaged(folder, why)


def _with_adapter(model: Any, folder: Path) -> Any:
    """Return the model with an adapter merged into its weights.

    Raises:
        Card: for an adapter of another kind than LoRA, or with settings that aren't supported.
    """
    from peft import LoraConfig, PeftModel

    recorded: dict[str, Any] = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    if recorded.get("peft_type") != "LORA":
        raise _damaged(folder, f"It is an adapter of the type {recorded.get('peft_type')!r}.")
    if not (folder / "adapter_model.safetensors").is_file():
        raise _damaged(folder, "It has no adapter_model.safetensors.")
    defaults = LoraConfig().to_dict()
    for key, value in recorded.items():
        allowed = key in _ADAPTER_KEYS or key in _NOT_COMPUTED
        if not allowed and value and value != defaults.get(key):
            raise _damaged(folder, f"{ADAPTER} sets {key}, which is not supported here.")
    chosen = {key: recorded[key] for key in _ADAPTER_KEYS if key in recorded}
    config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **chosen)
    adapted: Any = PeftModel.from_pretrained(model, folder, config=config)
    return adapted.merge_and_unload()


def _context(model: Any) -> int:
    """Return the most tokens that a model reads."""
    length = getattr(model.config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else _DEFAULT_CONTEXT
