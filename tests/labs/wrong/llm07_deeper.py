"""Wrong solutions of LLM07+: what a learner might plausibly hand in, and the message."""

from labs.llm07_lora import deeper as lab

import torch
import torch.nn.functional as F


def update_by(sign=-1.0, scale=lambda s: s, of_b=torch.sign, of_w=lambda delta: delta):
    def first_update(g, a, s, rate):
        return sign * scale(s) * rate * of_w(of_b(g @ a.mT) @ a)

    return first_update


def keeps_the_size(gradient):
    return gradient


def quantize_by(scale=None, relative=True, nearest=True, dtype=torch.uint8, shaped=True):
    def quantize(weight, levels, block):
        blocks = weight.reshape(-1, block)
        scales = scale(blocks) if scale else blocks.abs().amax(1)
        used = blocks / scales.clamp_min(1e-12)[:, None] if relative else blocks
        if nearest:
            codes = (used[..., None] - levels).abs().argmin(-1)
        else:
            codes = (used[..., None] >= levels).sum(-1).clamp_min(1) - 1
        return codes.to(dtype).view(weight.shape if shaped else blocks.shape), scales

    return quantize


def divides_by_zero(weight, levels, block):
    blocks = weight.reshape(-1, block)
    scales = blocks.abs().amax(1)
    codes = (blocks / scales[:, None])[..., None].sub(levels).abs().argmin(-1)
    return codes.to(torch.uint8).view(weight.shape), scales


def dora(norms=None, scaled=True, detached=True, bias="unscaled"):
    """Return a DoRA layer; `norms(layer, weight)` are the norms it divides by."""

    class Layer(lab.DoraLinear):
        def forward(self, x):
            weight = self.base.weight + self.delta()
            size = norms(self, weight) if norms else weight.norm(dim=1)
            size = size.detach() if detached else size
            factor = self.magnitude / size if scaled else 1
            if bias == "scaled":
                return (F.linear(x, weight) + self.base.bias) * factor
            output = F.linear(x, weight) * factor
            return output if bias == "missing" else output + self.base.bias

    return Layer


class DetachesTheUpdate(lab.DoraLinear):
    def forward(self, x):
        weight = (self.base.weight + self.delta()).detach()
        return F.linear(x, weight) * (self.magnitude / weight.norm(dim=1)) + self.base.bias


class DetachesTheOutput(lab.DoraLinear):
    def forward(self, x):
        return super().forward(x).detach()


class ForgetsTheMerge(lab.DoraLinear):
    def forward(self, x):
        weight = self.base.weight + self.delta()
        factor = self.magnitude / weight.norm(dim=1).detach()
        return F.linear(x, weight) * factor + self.base.bias


WRONG = [
    ("first_update", update_by(sign=1.0), "the minus is missing"),
    ("first_update", update_by(scale=lambda _: 1.0), "the factor scale is missing"),
    ("first_update", update_by(scale=lambda s: s**2), "the scale is there twice"),
    ("first_update", update_by(of_b=keeps_the_size), "this is gradient descent: Adam"),
    ("first_update", update_by(scale=lambda s: s**2, of_b=keeps_the_size), "with its scale²"),
    ("first_update", update_by(of_b=keeps_the_size, of_w=torch.sign), "not ΔW"),
    ("first_update", lambda g, _, s, rate: -s * rate * g.sign(), "only A and B are trained"),
    ("first_update", lambda g, a, _, rate: -rate * (g @ a.mT).sign(), "the shape of W"),
    ("quantize", quantize_by(lambda blocks: blocks.amax(1)), "largest absolute value"),
    (
        "quantize",
        quantize_by(lambda blocks: blocks.abs().max().expand(len(blocks))),
        "each block has its own",
    ),
    ("quantize", quantize_by(relative=False), "divide each block by its scale"),
    ("quantize", quantize_by(nearest=False), "take the nearest level"),
    ("quantize", quantize_by(dtype=torch.int64), "uint8"),
    ("quantize", quantize_by(shaped=False), "the shape of the matrix"),
    ("quantize", divides_by_zero, "a block of zeros"),
    ("DoraLinear.forward", dora(scaled=False), "this is LoRA"),
    ("DoraLinear.forward", dora(lambda *_: torch.ones(())), "not divided by their norms"),
    (
        "DoraLinear.forward",
        dora(lambda layer, _: layer.base.weight.norm(dim=1)),
        "those of W alone",
    ),
    ("DoraLinear.forward", dora(bias="scaled"), "the bias is scaled"),
    ("DoraLinear.forward", dora(bias="missing"), "the bias is missing"),
    ("DoraLinear.forward", dora(detached=False), "must count as constants"),
    ("DoraLinear.forward", DetachesTheUpdate, "no gradient reaches A"),
    ("DoraLinear.forward", DetachesTheOutput, "detach only the norms"),
    ("DoraLinear.forward", ForgetsTheMerge, "once merged"),
]
