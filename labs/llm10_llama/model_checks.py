"""Check the exercises of LLM10 that make a model of the parts: tying, forward, writing, a step.

Blocks and models are stand-ins, so that each check proves one function alone.
"""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from labs.kit import Mistake, draw, equals, expect_close, name_mistake

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Mistakes = dict[str, Callable[[], Tensor]]


def tie(module: Any) -> None:
    """Tie an untied model, and look at the objects."""
    model = module.Llama(module.Config(7, 4, 1, 2, 1, 8, tied=False))
    rows = model.embed_tokens.weight.detach().clone()
    model.tie()
    first = model.embed_tokens.weight
    last = model.lm_head.weight
    if not torch.equal(first, rows):
        raise Mistake("the embedding has changed: lm_head takes its matrix, not the reverse")
    if last is first:
        return
    if last.shape == first.shape and last.data_ptr() == first.data_ptr():
        raise Mistake(
            "two parameters share one storage: an optimizer would move it twice; assign the "
            "nn.Parameter itself"
        )
    if equals(last, first):
        raise Mistake("this is a copy: the first step of an optimizer moves both ends apart")
    raise Mistake("the two ends still differ: lm_head.weight must be embed_tokens.weight")


class _Block(nn.Module):
    """In place of a block: a matrix and a shift; it records what it gets, and fills the cache."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.weight = draw(8, 8, seed=index) / 2
        self.shift = index + 1
        self.calls: list[tuple[Any, Any]] = []

    def forward(self, x: Tensor, turns: Any = None, extend: Any = None, mask: Any = None) -> Tensor:
        """Return another x; store zeros for its tokens."""
        self.calls.append((turns, mask))
        if extend is not None:
            zeros = x.new_zeros(len(x), 1, x.shape[1], 4)  # (B, H_kv, T, D)
            extend(zeros, zeros)
        return x @ self.weight + self.shift


def forward(module: Any) -> None:
    """Compare with two stand-ins for blocks, bare, with a cache, and with padding."""
    model = module.Llama(module.Config(9, 8, 2, 2, 1, 12, tied=False)).double()
    model.layers = nn.ModuleList([_Block(0), _Block(1)])
    starts: list[tuple[int, int]] = []

    def turns(start: int, length: int, device: Any) -> str:
        del device
        starts.append((start, length))
        return f"turns from {start}"

    model.turns = turns
    tokens = torch.tensor([[1, 5, 3, 8, 2], [4, 4, 0, 7, 6]])
    with torch.no_grad():
        model.norm.weight.copy_(1 + draw(8, seed=5).abs())
        model.lm_head.weight.copy_(draw(9, 8, seed=6))
        _forward_bare(model, tokens, starts)
        _forward_with_a_cache(model, tokens, starts)
        _forward_with_padding(model, tokens, module.padded_mask)


def _reference(model: Any, tokens: Tensor, order: tuple[int, ...] = (0, 1)) -> Tensor:
    """Return what comes out of the blocks, (B, T, d)."""
    x = model.embed_tokens(tokens)
    for index in order:
        x = x @ model.layers[index].weight + model.layers[index].shift
    return x


def _forward_bare(model: Any, tokens: Tensor, starts: list[tuple[int, int]]) -> None:
    got = model(tokens)
    x = _reference(model, tokens)
    mistakes: Mistakes = {
        "the last norm is missing": lambda: model.lm_head(x),
        "the blocks are missing": lambda: model.lm_head(model.norm(model.embed_tokens(tokens))),
        "only the first block is used": (
            lambda: model.lm_head(model.norm(_reference(model, tokens, (0,))))
        ),
        "only the last block is used: give each the x that the one before returned": (
            lambda: model.lm_head(model.norm(_reference(model, tokens, (1,))))
        ),
        "the last matrix, lm_head, is missing": lambda: model.norm(x),
    }
    name_mistake(got, mistakes)
    expect_close(got, model.lm_head(model.norm(x)), "embed, all blocks in turn, norm, lm_head")
    if starts != [(0, 5)]:
        raise Mistake(f"call self.turns once, for 5 positions from 0; you asked for {starts}")
    if model.layers[0].calls[-1][0] != "turns from 0":
        raise Mistake("the blocks don't get the turns: without them the model knows no order")
    if model.layers[0].calls[-1][1] is not None:
        raise Mistake("without padding the mask must be None: attention is causal by itself")
    last = model(tokens, last=True)
    if isinstance(last, Tensor) and last.shape == (2, 9):
        raise Mistake("with last, keep the axis: (B, 1, V), by x[:, -1:]")
    expect_close(last, got[:, -1:], "with last, return the logits after the last token")


def _forward_with_a_cache(model: Any, tokens: Tensor, starts: list[tuple[int, int]]) -> None:
    cache = model.cache(2, 12)
    starts.clear()
    parts = [model(tokens[:, :3], cache), model(tokens[:, 3:], cache)]
    if cache.filled == [0, 0]:
        raise Mistake("nothing is stored: give each block partial(cache.extend, i)")
    if cache.filled != [5, 5]:
        raise Mistake(f"block i stores in layer i; after 5 tokens the layers have {cache.filled}")
    if starts == [(0, 3), (0, 2)]:
        raise Mistake("positions begin at 0 again: the new tokens stand behind the cache's")
    if starts != [(0, 3), (3, 2)]:
        raise Mistake(f"expected turns for 3 positions from 0 and 2 from 3, got {starts}")
    expect_close(torch.cat(parts, 1), model(tokens), "with a cache, logits are the same")


def _forward_with_padding(model: Any, tokens: Tensor, padded_mask: Any) -> None:
    padding = torch.tensor([0, 2])
    cache = model.cache(2, 5)
    for part in tokens.split((3, 2), 1):
        start = cache.filled[0]
        model(part, cache, padding)
        mask = model.layers[1].calls[-1][1]
        length = part.shape[1]
        if mask is None:
            raise Mistake("padding isn't used: the blocks get no mask")
        if start and equals(mask, padded_mask(padding, length, length)):
            raise Mistake("the mask has no columns for the cache's tokens: tk = start + T")
        want = padded_mask(padding, length, start + length)
        expect_close(mask, want, "the mask is padded_mask(padding, T, start + T)")


class _Model:
    """In place of a model: the next token depends on all that its cache has; it records calls."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(context=8)
        self.calls: list[SimpleNamespace] = []

    def cache(self, batch: int, room: int) -> SimpleNamespace:
        """Return an empty cache."""
        return SimpleNamespace(
            room=room, filled=[0], tokens=torch.zeros(batch, 0, dtype=torch.long)
        )

    def __call__(
        self, tokens: Tensor, cache: Any = None, padding: Any = None, last: bool = False
    ) -> Tensor:
        """Return logits, (B, T, 11), or after the last token alone."""
        if cache is None:
            raise Mistake("the model is called without a cache: it would read everything again")
        self.calls.append(
            SimpleNamespace(length=tokens.shape[1], padding=padding, grad=torch.is_grad_enabled())
        )
        cache.tokens = torch.cat((cache.tokens, tokens), 1)
        cache.filled = [cache.tokens.shape[1]]
        if cache.filled[0] > cache.room:
            raise Mistake(
                f"{cache.filled[0]} tokens in a cache with room for {cache.room}: when it is full, "
                "start a new cache with the last half of the context"
            )
        logits = torch.stack([_logits(cache.tokens, i + 1) for i in range(cache.filled[0])], 1)
        return logits[:, -1:] if last else logits[:, -tokens.shape[1] :]


def _logits(tokens: Tensor, count: int) -> Tensor:
    """Return (B, 11) that depend on the first `count` tokens and their order."""
    weights = torch.arange(1, count + 1)
    seed = (tokens[:, :count] * weights).sum(-1) * 7 + count  # (B,)
    return ((seed[:, None] * torch.arange(1, 12) ** 2 + torch.arange(11)) % 23).float()


def _write(ids: Tensor, new: int, rank: int = 0, half: int = 4) -> tuple[Tensor, list[int]]:
    """Return the tokens that are right, and the first token of each cache."""
    prompt = ids.shape[1]
    first = max(0, prompt - 8)
    firsts = [first]
    for _ in range(new):
        if ids.shape[1] - first > 8:
            first = ids.shape[1] - half
            firsts.append(first)
        window = ids[:, first:]
        logits = _logits(window, window.shape[1])
        ids = torch.cat((ids, logits.argsort(dim=-1, descending=True, stable=True)[:, [rank]]), 1)
    return ids[:, prompt:], firsts


def _choose(rank: int) -> Callable[[Tensor], Tensor]:
    """Return a function that chooses the token of this rank, and refuses another shape."""

    def choose(logits: Tensor) -> Tensor:
        if logits.dim() != 2:
            raise Mistake(f"choose takes logits (B, V), got {tuple(logits.shape)}: take [:, -1]")
        return logits.argsort(dim=-1, descending=True, stable=True)[:, rank]

    return choose


def generate(module: Any) -> None:
    """Let a stand-in for a model write: within the context, beyond it, and with padding."""
    prompt = torch.tensor([[3, 1, 4], [1, 5, 9]])
    model = _Model()
    got = module.generate(model, prompt, 4, _choose(0))
    lengths = [call.length for call in model.calls]
    if lengths[:2] == [3, 4]:
        raise Mistake("the text is read again at each step: bring only the new token")
    _compare_texts(got, prompt, 4, "within the context")
    if lengths[:4] != [3, 1, 1, 1]:
        raise Mistake(
            f"expected calls with 3, 1, 1 and 1 tokens, got {lengths}: the cache has the rest"
        )
    if any(call.grad for call in model.calls):
        raise Mistake("gradients are recorded: call the model under torch.inference_mode()")
    if got.is_inference():
        raise Mistake("the tokens can't be trained on: return a clone outside of inference mode")
    if not torch.equal(module.generate(_Model(), prompt, 4, _choose(1)), _write(prompt, 4, 1)[0]):
        raise Mistake("choose isn't used as it should: it gets the logits after the last token")
    long = torch.arange(24).view(2, 12) % 11
    _compare_texts(module.generate(_Model(), long, 3, _choose(0)), long, 3, "of a long prompt")
    _compare_texts(
        module.generate(_Model(), prompt, 12, _choose(0)), prompt, 12, "past the context"
    )
    _write_with_padding(module, prompt)


def _compare_texts(got: Any, prompt: Tensor, new: int, which: str) -> None:
    want, _ = _write(prompt, new)
    mistakes: Mistakes = {
        "the prompt is returned, too: return the new tokens alone": (
            lambda: torch.cat((prompt, want), 1)
        ),
        "the new cache starts with another part of the text than the last half of the context": (
            lambda: _write(prompt, new, half=8)[0]
        ),
        "the new cache starts with the last token alone: what came before is lost": (
            lambda: _write(prompt, new, half=1)[0]
        ),
    }
    if not equals(got, want):  # a text within the context needs one cache alone
        name_mistake(got, mistakes)
    expect_close(got, want, f"the tokens {which} differ")


def _write_with_padding(module: Any, prompt: Tensor) -> None:
    padding = torch.tensor([0, 2])
    model = _Model()
    module.generate(model, prompt, 12, _choose(0), padding)
    passed = [call.padding for call in model.calls]
    if any(value is None for value in passed):
        raise Mistake("padding isn't passed to the model")
    _, firsts = _write(prompt, 12)
    if not torch.equal(passed[0], padding):
        raise Mistake(
            f"the first call must get padding {padding.tolist()}, got {passed[0].tolist()}"
        )
    last = passed[11]
    if torch.equal(last, padding):
        raise Mistake("a new cache has dropped tokens at the left: padding shrinks by as many")
    if not torch.equal(last.clamp(min=0), (padding - firsts[-1]).clamp(min=0)):
        raise Mistake(f"padding {last.tolist()} is wrong after the new cache")


def training_step(module: Any) -> None:
    """Take two steps with a small model and two optimizers; compare with steps written out."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    wanted = copy.deepcopy(ours)
    tokens = torch.tensor([[1, 5, 3, 0, 2], [4, 4, 6, 1, 6]])
    optimizers = [torch.optim.SGD(layer.parameters(), 0.5) for layer in ours]
    calls: list[Tensor] = []

    def backward(loss: Tensor) -> None:
        calls.append(loss)
        loss.backward()

    for step in range(2):
        mistakes = _losses(wanted, tokens)
        loss = _step(wanted, tokens)
        got = module.training_step(ours, optimizers, tokens.clone(), backward)
        if not isinstance(got, Tensor):
            raise Mistake(f"return the loss as a tensor, not {type(got).__name__}")
        name_mistake(got.detach(), mistakes)
        expect_close(got.detach(), loss, "the mean cross-entropy of the next tokens")
        if got.requires_grad:
            raise Mistake("return loss.detach(): else the graph of each step stays in memory")
        if len(calls) != step + 1:
            raise Mistake(
                f"call backward(loss) once a step; {len(calls)} calls in {step + 1} steps"
            )
        _compare_weights(ours, wanted)


def _losses(model: nn.Module, tokens: Tensor) -> Mistakes:
    """Return the losses that mistakes give."""
    with torch.no_grad():
        logits = model(tokens[:, :-1])
        read = F.cross_entropy(logits.flatten(0, 1), tokens[:, :-1].flatten())
        total = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    return {
        "the targets are the tokens that were read: they are one place on, tokens[:, 1:]": (
            lambda: read
        ),
        "the loss is a sum: its gradient would grow with the batch": lambda: total,
    }


def _step(model: Any, tokens: Tensor) -> Tensor:
    """Take a step of gradient descent at the rate 0.5."""
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    grads = torch.autograd.grad(loss, [*model.parameters()])
    with torch.no_grad():
        for p, grad in zip(model.parameters(), grads, strict=True):
            p -= 0.5 * grad
    return loss.detach()


def _compare_weights(ours: Any, wanted: Any) -> None:
    pairs = [*zip(ours.parameters(), wanted.parameters(), strict=True)]
    same = [equals(a.detach(), b.detach()) for a, b in pairs]
    if any(p.grad is not None and p.grad.any() for p in ours.parameters()):
        raise Mistake("gradients are left over: call zero_grad() of each optimizer after its step")
    if not any(same):
        raise Mistake("the weights are wrong: step() after backward, zero_grad() after step()")
    if not all(same):
        raise Mistake("not every optimizer takes a step: loop over all of them")
