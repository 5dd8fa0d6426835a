"""Wrong solutions that a learner might write for LLM09, and the message that each must get."""

import json

from labs.llm09_custom_architectures import lesson as lab

import torch
import torch.nn.functional as F
from torch import nn

# load_partial


def report(module, state):
    own = module.state_dict()
    both = own.keys() & state.keys()
    fits = sorted(name for name in both if own[name].shape == state[name].shape)
    missing = sorted(own.keys() - both)
    unexpected = sorted(state.keys() - both)
    return fits, missing, unexpected, sorted(both.difference(fits))


def raises_for_a_shape(module, state):
    module.load_state_dict(state, strict=False)
    return report(module, state)


def swaps_missing_and_unexpected(module, state):
    fits, missing, unexpected, misshapen = lab.load_partial(module, state)
    return fits, unexpected, missing, misshapen


def silent_where_nothing_fits(module, state):
    found = report(module, state)
    module.load_state_dict({name: state[name] for name in found[0]}, strict=False)
    return found


def parameters_alone(module, state):
    found = report(module, state)
    with torch.no_grad():
        for name, one in module.named_parameters():
            if name in found[0]:
                one.copy_(state[name])
    return found


def assigns(module, state):
    found = report(module, state)
    if not found[0]:
        raise ValueError
    module.load_state_dict({name: state[name] for name in found[0]}, strict=False, assign=True)
    return found


def reports_without_loading(module, state):
    return report(module, state)


def unsorted_sets(module, state):
    return tuple(set(names) for names in lab.load_partial(module, state))


# read_safetensors


def trusts_every_header(data):
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + at for at in entry["data_offsets"])
            raw = torch.tensor(list(data[begin:end]), dtype=torch.uint8)
            found[name] = raw.view(lab.DTYPES[entry["dtype"]]).view(entry["shape"])
    return found


def offsets_from_the_files_beginning(data):
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = torch.tensor(list(data[begin:end]), dtype=torch.uint8)
        found[name] = raw.view(lab.DTYPES[entry["dtype"]]).view(entry["shape"])
    return found


def casts(data):
    return {name: tensor.float() for name, tensor in lab.read_safetensors(data).items()}


def flat(data):
    return {name: tensor.flatten() for name, tensor in lab.read_safetensors(data).items()}


def big_endian(data):
    return lab.read_safetensors(data[:8][::-1] + data[8:])


def keeps_the_metadata(data):
    found = lab.read_safetensors(data)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    return found | {k: v for k, v in header.items() if k == "__metadata__"}


def ignores_what_follows(data):
    try:
        return lab.read_safetensors(data)
    except ValueError:
        return lab.read_safetensors(data[:-4])


# BatchNorm.forward


def norm(correction=0, eps_inside=True, step=True, ratio=True, flow=True, affine=True, cast=True):
    """Return a BatchNorm with one of these mistakes."""

    class BatchNorm(lab.BatchNorm):
        def forward(self, x):
            x = x.to(self.weight.dtype) if cast else x
            mean = self.mean
            var = self.var
            if self.training:
                mean = x.mean((0, 2, 3))
                var = x.var((0, 2, 3), correction=correction)
                if not flow:
                    mean = mean.detach()
                    var = var.detach()
                n = x.numel() / x.shape[1]
                if step:
                    with torch.no_grad():
                        self.mean.lerp_(mean, self.momentum)
                        self.var.lerp_(var * (n / (n - 1) if ratio else 1), self.momentum)
            mean = mean[:, None, None]
            var = var[:, None, None]
            root = (var + self.eps).sqrt() if eps_inside else var.sqrt() + self.eps
            y = (x - mean) / root
            if not affine:
                return y
            return y * self.weight[:, None, None] + self.bias[:, None, None]

    return BatchNorm


class AlwaysTheBuffers(lab.BatchNorm):
    def forward(self, x):
        mode = self.training
        self.training = False
        y = super().forward(x)
        self.training = mode
        return y


class AlwaysTheBatch(lab.BatchNorm):
    def forward(self, x):
        if self.training:
            return super().forward(x)
        mean = x.mean((0, 2, 3))
        var = x.var((0, 2, 3), correction=0)
        y = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class MomentumTheOtherWay(lab.BatchNorm):
    def __init__(self, channels):
        super().__init__(channels, momentum=0.9)


class InTheGraph(lab.BatchNorm):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        old = self.mean.clone()
        y = super().forward(x)
        self.mean = 0.9 * old + 0.1 * x.mean((0, 2, 3)) * self.weight / self.weight
        return y


# look_inside


def leaves_its_hooks(model, names, x):
    seen = {}
    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _m, _i, y, name=name: seen.update({name: y.clone()}))
    with torch.no_grad():
        model(x)
    return seen


def looks(copy=True, late=False, grad=False, mode=False, tidy=True):
    """Return a `look_inside` with one of these mistakes."""

    def look_inside(model, names, x):
        seen = {}
        handles = []

        def keep(name):
            def hook(_module, _inputs, y):
                seen[names[-1] if late else name] = y.clone() if copy else y

            return hook

        if mode:
            model.eval()
        for name in names:
            handles.append(model.get_submodule(name).register_forward_hook(keep(name)))
        with torch.set_grad_enabled(grad):
            try:
                model(x)
            except RuntimeError:
                if tidy:
                    for handle in handles:
                        handle.remove()
                raise
        for handle in handles:
            handle.remove()
        return seen

    return look_inside


def clears_all_hooks(model, names, x):
    try:
        return leaves_its_hooks(model, names, x)
    finally:
        for module in model.modules():
            module._forward_hooks.clear()


def swallows_the_error(model, names, x):
    try:
        return lab.look_inside(model, names, x)
    except RuntimeError:
        return {}


# adapter_kernels


def kernels(first=lambda a, _s: a, second=lambda b, s: s * b):
    """Return an `adapter_kernels` with other factors of A and B; s is alpha / rank."""

    def adapter_kernels(convolution):
        adapter = convolution.linear
        down, up = lab.adapter_kernels(convolution)
        scale = adapter.alpha / adapter.rank
        return first(down, scale), second(up / scale, scale)

    return adapter_kernels


def channels_last(convolution):
    adapter = convolution.linear
    k = convolution.size
    down = adapter.A.view(adapter.rank, k, k, -1).permute(0, 3, 1, 2)
    return down, lab.adapter_kernels(convolution)[1]


def cut_from_the_graph(convolution):
    return tuple(kernel.detach() for kernel in lab.adapter_kernels(convolution))


def one_kernel(convolution):
    down, up = lab.adapter_kernels(convolution)
    return torch.einsum("rcij,or->ocij", down, up[:, :, 0, 0])


# GatedConvolution.forward


def gated(
    left=None, flip=True, first=True, second=True, swap=False, last=True, gate=lambda x: 1 + x
):
    """Return a GatedConvolution with one of these mistakes."""

    class GatedConvolution(lab.GatedConvolution):
        def forward(self, x):
            a, b, v = self.enter(x).chunk(3, -1)
            if swap:
                a, b = b, a
            d, k = self.kernel.shape
            u = gate(a) * v if first else v
            before = k - 1 if left is None else left
            u = F.pad(u.mT, (before, k - 1 - before))
            kernel = self.kernel.flip(1) if flip else self.kernel
            y = F.conv1d(u, kernel[:, None], groups=d).mT
            y = gate(b) * y if second else y
            return self.leave(y) if last else y

    return GatedConvolution


class CutOff(lab.GatedConvolution):
    def forward(self, x):
        return super().forward(x.detach())


class MixesChannels(lab.GatedConvolution):
    def __init__(self, d_model, k=4):
        super().__init__(d_model, k)
        self.mix = nn.Linear(d_model, d_model).double()

    def forward(self, x):
        return super().forward(self.mix(x))


WRONG = [
    ("load_partial", raises_for_a_shape, "report another shape, don't raise"),
    ("load_partial", swaps_missing_and_unexpected, "missing and unexpected are swapped"),
    ("load_partial", silent_where_nothing_fits, "so nothing is loaded: raise a ValueError"),
    ("load_partial", parameters_alone, "buffers belong to the state"),
    ("load_partial", assigns, "copy in place, don't assign"),
    ("load_partial", reports_without_loading, "body.weight fits, but it isn't loaded"),
    ("load_partial", unsorted_sets, "must be a list"),
    ("load_partial", lambda *_: None, "expected four lists of names, got nothing"),
    ("load_partial", None, "expected a function"),
    ("read_safetensors", trusts_every_header, "isn't refused|expected a ValueError"),
    ("read_safetensors", offsets_from_the_files_beginning, "count from the header's end"),
    ("read_safetensors", casts, "view the bytes as that dtype"),
    ("read_safetensors", flat, "expected the shape"),
    ("read_safetensors", big_endian, "refuses a valid file"),
    ("read_safetensors", keeps_the_metadata, "text for people"),
    ("read_safetensors", ignores_what_follows, "bytes after the last tensor isn't refused"),
    ("read_safetensors", lambda _: None, "expected a dict of tensors by name"),
    ("BatchNorm.forward", norm(correction=1, ratio=False), "to normalise, σ² divides by n"),
    ("BatchNorm.forward", norm(eps_inside=False), "inside the root"),
    ("BatchNorm.forward", norm(step=False), "the buffers don't change"),
    ("BatchNorm.forward", norm(ratio=False), "divides by n − 1"),
    ("BatchNorm.forward", norm(flow=False), "the gradient of x: are the statistics detached"),
    ("BatchNorm.forward", norm(affine=False), "weight and bias aren't used"),
    ("BatchNorm.forward", norm(cast=False), "cast it to the weight's dtype"),
    ("BatchNorm.forward", AlwaysTheBuffers, "are the buffers used"),
    ("BatchNorm.forward", AlwaysTheBatch, "in evaluation use the buffers"),
    ("BatchNorm.forward", MomentumTheOtherWay, "the share of the new mean"),
    ("BatchNorm.forward", InTheGraph, "belong to the graph"),
    ("look_inside", leaves_its_hooks, "a hook is left behind"),
    ("look_inside", looks(copy=False), "changed the stored output: clone it"),
    ("look_inside", looks(late=True), "bind it"),
    ("look_inside", looks(grad=True), "belong to a graph"),
    ("look_inside", looks(mode=True), "leave the model in training or evaluation mode"),
    ("look_inside", looks(tidy=False), "if the model raises, hooks are left behind"),
    ("look_inside", looks(), "if a name is unknown, hooks are left behind"),
    ("look_inside", clears_all_hooks, "remove only your own"),
    ("look_inside", swallows_the_error, "it must raise as well"),
    ("adapter_kernels", channels_last, "channels first"),
    ("adapter_kernels", kernels(second=lambda b, _: b), "alpha / rank is missing"),
    ("adapter_kernels", kernels(second=lambda b, s: b / s), "is it rank / alpha"),
    ("adapter_kernels", kernels(first=lambda a, s: s * a), "belongs to the second kernel"),
    ("adapter_kernels", kernels(first=lambda a, _: a.flip(2, 3)), "the kernel is flipped"),
    ("adapter_kernels", cut_from_the_graph, "cut off from the graph"),
    ("adapter_kernels", one_kernel, "expected two kernels"),
    ("GatedConvolution.forward", gated(flip=False), "column 0 is for the token itself"),
    ("GatedConvolution.forward", gated(left=0), "the padding is on the right"),
    ("GatedConvolution.forward", gated(left=1), "none on the right"),
    ("GatedConvolution.forward", gated(left=1, flip=False), "the padding is on both sides"),
    ("GatedConvolution.forward", gated(first=False), "the gate a is missing"),
    ("GatedConvolution.forward", gated(second=False), "the gate b is missing"),
    ("GatedConvolution.forward", gated(swap=True), "the gates are swapped"),
    ("GatedConvolution.forward", gated(last=False), "the last matrix, is missing"),
    ("GatedConvolution.forward", gated(gate=lambda x: x), "the gates start open"),
    ("GatedConvolution.forward", gated(gate=torch.sigmoid), "they only multiply"),
    ("GatedConvolution.forward", CutOff, "no gradient reaches x"),
    ("GatedConvolution.forward", MixesChannels, "column i of the kernel"),
]
