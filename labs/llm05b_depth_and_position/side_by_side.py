"""Train several small models of one shape at the same time: LLM05b's stacks."""

from collections.abc import Callable, Sequence
from copy import deepcopy

from labs.kit import Run, on_one_thread
from labs.shared.small_gpt import Corpus, Trained, lr_at

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parameters_to_vector, vector_to_parameters

WATCHED = 8  # steps from a look at the gradients to the next


class SideBySide(nn.Module):
    """S models of one shape, (S, B, T) tokens -> (S, B, T, V) logits; buffers are the first's.

    A small model's step is mostly the overhead of about 1,000 calls. Here S models share them, and
    nothing else. Each model's parameters are one vector, so an optimizer has S tensors.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        self.models = models  # not submodules: their weights follow the vectors in `separate`
        self.first = deepcopy(models[0]).requires_grad_(False)
        named = dict(models[0].named_parameters())
        self.shapes = {name: parameter.shape for name, parameter in named.items()}
        self.sizes = [parameter.numel() for parameter in named.values()]
        flat = (parameters_to_vector(model.parameters()).detach() for model in models)
        self.vectors = nn.ParameterList(flat)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each model for its own texts."""
        parts = torch.stack(list(self.vectors)).split(self.sizes, 1)  # (S, …) each
        parameters = {
            name: part.view(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

        def logits(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.first, parameters, (x,))

        with sdpa_kernel(SDPBackend.MATH):  # vmap has no rule for the CPU's fused kernel
            return vmap(logits)(parameters, tokens)

    def separate(self) -> Sequence[nn.Module]:
        """Return the models with their present weights and gradients."""
        for model, vector in zip(self.models, self.vectors, strict=True):
            model.to(vector.device)
            vector_to_parameters(vector.detach(), model.parameters())
            gradients = None if vector.grad is None else vector.grad.split(self.sizes)
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = gradients and gradients[i].view_as(parameter)
        return self.models


@on_one_thread
def train_side_by_side(
    run: Run,
    starts: Sequence[nn.Module],
    corpus: Corpus,
    *,
    steps: int,
    lrs: Sequence[float],
    warmups: Sequence[int],
    seeds: Sequence[int],
    batch: int,
    length: int,
    watch: Callable[[Sequence[nn.Module]], None] | None = None,
) -> list[Trained]:
    """Train copies of models with AdamW, as `small_gpt.train` does one after the other.

    Args:
        run: the run.
        starts: the models, which stay as they are.
        corpus: the text.
        steps: of each training.
        lrs: the peak of each model's learning rate.
        warmups: the steps of each model's warm-up.
        seeds: one for each model; it determines the model's batches.
        batch: the number of texts in a batch of one model.
        length: the number of tokens in a text.
        watch: is called with the models before every eighth step of the optimizer, when their
            gradients are computed.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    models = SideBySide([deepcopy(start) for start in starts])
    groups = [{"params": [vector]} for vector in models.vectors]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    together, optimizer = run.accelerator.prepare(models, optimizer)
    losses: list[Tensor] = []  # (S,) each
    norms: list[Tensor] = []
    for step in range(steps):
        for group, lr, warmup in zip(optimizer.param_groups, lrs, warmups, strict=True):
            group["lr"] = lr * lr_at(step, steps, warmup)
        batches = [run.share(corpus.batch(batch, length, generator)) for generator in generators]
        tokens = torch.stack(batches).to(run.device)  # (S, B, T + 1)
        logits = together(tokens[..., :-1])  # (S, B, T, V)
        targets = tokens[..., 1:].flatten()
        each = F.cross_entropy(logits.flatten(0, 2), targets, reduction="none")
        loss = each.view(len(seeds), -1).mean(1)  # (S,)
        run.accelerator.backward(loss.sum())  # no model's gradient depends on another
        run.accelerator.unscale_gradients(optimizer)
        gradients = (vector.grad for vector in models.vectors)
        norms.append(torch.stack([each.norm() for each in gradients if each is not None]))
        if watch is not None and step % WATCHED == 0:
            watch(models.separate())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    run.accelerator.unwrap_model(together, keep_fp32_wrapper=False)
    columns = (torch.stack(rows).T.tolist() for rows in (losses, norms))
    return [Trained(*parts) for parts in zip(models.separate(), *columns, strict=True)]
