"""Wrong solutions that a learner might write for LLM09+, and the message that each must get."""

import json

from labs.llm09_custom_architectures import deeper as lab

import torch

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
    def __init__(self, channels, momentum=0.1, eps=1e-5):
        super().__init__(channels, 1 - momentum, eps)


class FixedEps(lab.BatchNorm):
    def forward(self, x):
        self.eps = 1e-5
        return super().forward(x)


class FixedMomentum(lab.BatchNorm):
    def forward(self, x):
        self.momentum = 0.1
        return super().forward(x)


class InTheGraph(lab.BatchNorm):
    def forward(self, x):
        if not self.training:
            return super().forward(x)
        old = self.mean.clone()
        y = super().forward(x)
        self.mean = 0.9 * old + 0.1 * x.mean((0, 2, 3)) * self.weight / self.weight
        return y


# WritingConvolution.step


def steps(
    flip=True, gate=True, leave=True, store="u", place="end", new=True, same=False, grow=False
):
    """Return a WritingConvolution with one of these mistakes."""

    class WritingConvolution(lab.WritingConvolution):
        def step(self, x, state):
            a, b, v = self.enter(x).chunk(3, -1)
            u = (1 + a) * v
            stored = {"u": u, "x": x, "v": v}[store][:, None]
            recent = torch.cat((state, u[:, None]), 1)
            kernel = (self.kernel.flip(1) if flip else self.kernel).mT
            mixed = (recent * kernel).sum(1) if new else (state * kernel[:-1]).sum(1)
            y = (1 + b) * mixed if gate else mixed
            after = torch.cat((state[:, 1:], stored), 1)
            if place == "front":
                after = torch.cat((stored, state[:, :-1]), 1)
            if same:
                after = state
            if grow:
                after = recent
            return (self.leave(y) if leave else y), after

    return WritingConvolution


class StepsInPlace(lab.WritingConvolution):
    def step(self, x, state):
        output, new = super().step(x, state)
        state.copy_(new)
        return output, state


class ReturnsTheOutputAlone(lab.WritingConvolution):
    def step(self, x, state):
        return super().step(x, state)[0]


WRONG = [
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
    ("BatchNorm.forward", FixedEps, "use self.eps"),
    ("BatchNorm.forward", FixedMomentum, "use self.momentum"),
    ("BatchNorm.forward", InTheGraph, "belong to the graph"),
    ("WritingConvolution.step", steps(flip=False), "the kernel isn't flipped"),
    ("WritingConvolution.step", steps(gate=False), "the gate b is missing"),
    ("WritingConvolution.step", steps(leave=False), "the last matrix, is missing"),
    ("WritingConvolution.step", steps(new=False), "the new token is missing"),
    ("WritingConvolution.step", steps(store="x"), "the state has x in it"),
    ("WritingConvolution.step", steps(store="v"), "the state has v in it"),
    ("WritingConvolution.step", steps(place="front"), "the newest vector is first"),
    ("WritingConvolution.step", steps(same=True), "put the new vector into it"),
    ("WritingConvolution.step", steps(grow=True), "the state grows"),
    ("WritingConvolution.step", StepsInPlace, "the old state has changed"),
    ("WritingConvolution.step", ReturnsTheOutputAlone, "return the output and the new state"),
]
