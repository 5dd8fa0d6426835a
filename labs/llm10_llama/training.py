"""The machinery around LLM10's training step: optimizers, schedule, checkpoints, samples.

The model, the step and the generation are the lesson's, so a learner's solutions train, too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from labs.kit import Checkpoints, Run, keep_memory, on_one_thread, stop_on_nan
from labs.llm10_llama.corpus import Text
from labs.llm10_llama.ladder import corpus, looked_at, nats
from labs.llm10_llama.muon import Muon
from labs.llm10_llama.parts import Config
from labs.shared.small_gpt import lr_at

import torch
from torch import Tensor, nn

LOOKS = 8  # at a model during its training, each after twice as many steps as the one before
SAMPLE = 400  # tokens


@dataclass(frozen=True)
class Parts:
    """The lesson's own code that a training needs.

    Attributes:
        model: makes a model from a Config.
        step: takes a training step; returns the loss before it.
        generate: continues a text.
        choose: draws a token from logits, at a temperature and within the top p.
        loop: calls `step` for each step, with its learning rates and batch.
    """

    model: Callable[[Config], Any]
    step: Callable[..., Tensor]
    generate: Callable[..., Tensor]
    choose: Callable[..., Tensor]
    loop: Callable[..., None]


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: of the optimizers.
        batch: windows of a step.
        muon: the peak of the learning rate of the blocks' matrices; None: AdamW has them, too.
        momentum: of Muon.
        adamw: the peak of the learning rate of all else.
        spread: how far a window's turn may be from its place in the text, as a share of the text,
            see Text.in_turn; None: windows come from anywhere, in any order.
    """

    steps: int
    batch: int
    muon: float | None = 0.02
    momentum: float = 0.95
    adamw: float = 0.006
    spread: float | None = None


@dataclass(frozen=True)
class Trained:
    """A trained model and its curves.

    Attributes:
        model: the model.
        losses: nats per token, on the batch before each step.
        seen: what `watch` returned, by the number of steps done.
        seconds: of the training.
    """

    model: Any
    losses: list[float]
    seen: dict[str, Any]
    seconds: float


# benchmarks/nanogpt.py trains it beside nanoGPT's. With two blocks of 128, a step of 8 windows took
# 0.7 times as long as with four blocks of 96, which call nearly twice as many kernels. Momentum of
# 0.85 at a rate of 0.03 gained 0.03 nats over 0.95 at 0.02 (compared on training text held out).
HEADLINE = (
    Config(0, 128, layers=2, heads=4, kv_heads=4, d_ff=344, context=128),
    Recipe(680, 16, muon=0.03, momentum=0.85, spread=1.0),
)


def sizes(run: Run) -> tuple[Config, Recipe]:
    """Return what this run trains, with the vocabulary of its text and the steps of --steps."""
    config, recipe = run.pick(
        tiny=(Config(0, 64, 3, 4, 2, 176), Recipe(400, 32)),
        small=HEADLINE,
        full=(Config(0, 384, 6, 6, 6, 1024, context=256), Recipe(3000, 64)),
    )
    config = replace(config, vocabulary=corpus(run).vocabulary)
    return config, replace(recipe, steps=run.options.steps or recipe.steps)


def by_default(run: Run) -> bool:
    """Return whether this run trains the lab's own recipe on the lab's own text."""
    options = run.options
    return options.corpus is None and not options.merges and options.steps is None


def require_below(run: Run, rung: str, gap: float) -> None:
    """Check that the model's loss is below a rung; for another text or recipe, measure it."""
    name = f"nats below the {rung}"
    if by_default(run):
        because = "counted in the same training text"
        run.check(name, gap, at_least=0.0, because=because, decides=True)
    else:  # nobody knows how far another text or recipe comes
        run.measure(name, gap, expect_at_least=0.0, decides=True)


def decay_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Return two groups for an optimizer: the matrices with this decay, and the rest with none.

    Only what is trained belongs to a group, and a shared matrix belongs to it once.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def optimizers(
    model: Any, recipe: Recipe, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Return AdamW, and Muon for the matrices inside of the blocks.

    Nothing decays: at `tiny` and `small`, a model sees less than the plays once.

    Args:
        model: the model.
        recipe: has the peaks of the learning rates.
        dtype: of Muon's products.
    """
    ends = {id(model.embed_tokens.weight), id(model.lm_head.weight)}
    groups = decay_groups(model, 0.0)
    inner = [p for p in groups[0]["params"] if id(p) not in ends] if recipe.muon else []
    with_muon = {id(p) for p in inner}
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in with_muon]
    adamw = torch.optim.AdamW(groups, recipe.adamw, betas=(0.9, 0.95), fused=True)
    if recipe.muon is None:
        return [adamw]
    return [adamw, Muon(inner, recipe.muon, recipe.momentum, dtype)]


def starts_of(text: Text, recipe: Recipe, context: int, seed: int) -> Tensor:
    """Return where each step's windows start, (steps, batch)."""
    draws = torch.Generator().manual_seed(seed)
    count = recipe.steps * recipe.batch
    if recipe.spread is None:
        starts = text.anywhere(count, context, draws)
    else:
        starts = text.in_turn(count, context, draws, recipe.spread)
    return starts.view(recipe.steps, recipe.batch)


def facts_of(config: Config) -> dict[str, Any]:
    """Return a configuration as JSON data."""
    return {name: getattr(value, "__name__", value) for name, value in vars(config).items()}


@on_one_thread
@torch.enable_grad()  # the first experiment that needs a model may need no gradients
def train(
    run: Run,
    parts: Parts,
    name: str,
    config: Config,
    text: Text,
    recipe: Recipe,
    seed: int,
    watch: Callable[[Any], Any] | None = None,
    at: tuple[int, ...] = (),
    change: Callable[[Any], None] | None = None,
) -> Trained:
    """Train a model; resume if an earlier run of the same training was interrupted.

    Args:
        run: the run.
        parts: the lesson's code.
        name: of this training, for its checkpoints and its progress bar.
        config: the model's shape.
        text: what it is trained on.
        recipe: steps, batch and learning rates.
        seed: of the first weights and the batches.
        watch: computes something from the model after each number of steps in `at`.
        at: numbers of steps.
        change: changes the untrained model.
    """
    keep_memory()  # LLM10+ measures why
    facts = {**facts_of(config), **vars(recipe), "text": text.sha256, "watched": list(at)}
    checkpoints = Checkpoints(run, f"{name}, seed {seed}", depends_on=facts, steps=recipe.steps)
    torch.manual_seed(seed)
    model = parts.model(config)
    if change is not None:
        change(model)
    in_bf16 = run.accelerator.mixed_precision == "bf16"
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    net, *prepared = run.accelerator.prepare(model, *optimizers(model, recipe, dtype))
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in prepared]
    starts = starts_of(text, recipe, config.context, seed)
    losses: list[float] = []
    seen: dict[str, Any] = {}
    checkpoints.include(losses=losses, seen=seen)
    done = checkpoints.resume()
    turns = iter(starts[done:])

    def batch() -> Tensor:
        return run.share(text.windows(next(turns), config.context)).to(run.device)

    def after(step: int, loss: Tensor, tokens: Tensor) -> None:
        losses.append(stop_on_nan(run, loss, step, tokens))
        run.log({f"{name}/loss": losses[-1]}, step)
        if watch and step + 1 in at:
            seen[str(step + 1)] = watch(model)
        checkpoints.save_if_due(step + 1)

    steps = run.progress(range(done, recipe.steps), f"{name}, seed {seed}")
    rates = partial(set_rates, peaks)
    backward = run.accelerator.backward
    parts.loop(parts.step, net, prepared, steps, recipe.steps, batch, rates, backward, after)
    checkpoints.save(recipe.steps)
    model = run.accelerator.unwrap_model(net, keep_fp32_wrapper=False)
    return Trained(model, losses, seen, checkpoints.seconds)


def set_rates(peaks: list[list[float]], prepared: list[Any], share: float) -> None:
    """Set each learning rate to a share of its peak."""
    for optimizer, of_groups in zip(prepared, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, of_groups, strict=True):
            group["lr"] = peak * share


def steps_to_look_at(steps: int) -> tuple[int, ...]:
    """Return the numbers of steps after which the model writes a sample."""
    return tuple(sorted({max(1, steps * 2**i // 2 ** (LOOKS - 1)) for i in range(LOOKS)}))


@cache
def trained(run: Run, parts: Parts) -> Trained:
    """Return the run's model; it was seen on the way by its validation loss and a sample."""
    config, recipe = sizes(run)
    text = corpus(run)
    part = looked_at(run)
    newline = torch.tensor([[10]], device=run.device)
    choose = partial(parts.choose, temperature=0.8, p=0.95)

    def look(model: Any) -> list[Any]:
        ids = parts.generate(model, newline, SAMPLE, choose)[0].tolist()
        return [nats(model, part, config.context), text.decode(ids)]

    at = steps_to_look_at(recipe.steps)
    return train(run, parts, "the model", config, text, recipe, run.seed, look, at)


def rates(recipe: Recipe) -> list[float]:
    """Return the learning rate of the blocks' matrices at each step."""
    peak = recipe.muon or recipe.adamw
    return [peak * lr_at(step, recipe.steps, recipe.steps // 20) for step in range(recipe.steps)]
