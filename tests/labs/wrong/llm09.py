"""Wrong solutions that a learner might write for LLM09, and the message that each must get."""

import copy

from labs.llm09_custom_architectures import lesson as lab

import torch
import torch.nn.functional as F
from torch import nn

# Module.__setattr__


class RegistersEveryTensor(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, torch.Tensor):
            self._parameters[name] = value
        else:
            super().__setattr__(name, value)


class ForgetsModules(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, lab.Module):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


class ForgetsParameters(lab.Module):
    def __setattr__(self, name, value):
        self.__dict__[name] = value


class ForgetsPlainValues(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, nn.Parameter | lab.Module) or name in self._buffers:
            super().__setattr__(name, value)


class HidesBuffers(lab.Module):
    def __setattr__(self, name, value):
        if name in self._buffers and not isinstance(value, nn.Parameter):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


class TwoHomes(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, nn.Parameter):
            self._parameters[name] = value
        elif isinstance(value, lab.Module):
            self._modules[name] = value
        else:
            super().__setattr__(name, value)


class OldRegistration(lab.Module):
    def __setattr__(self, name, value):
        self.__dict__.pop(name, None)
        if isinstance(value, nn.Parameter):
            self._parameters[name] = value
        elif isinstance(value, lab.Module):
            self._modules[name] = value
        else:
            super().__setattr__(name, value)


class HidesModules(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, lab.Module):
            self._buffers.pop(name, None)
            self._modules[name] = value
        else:
            super().__setattr__(name, value)


class KeepsTheModule(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, nn.Parameter):
            self.__dict__.pop(name, None)
            self._buffers.pop(name, None)
            self._parameters[name] = value
        else:
            super().__setattr__(name, value)


class KeepsTheParameter(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, lab.Module):
            self.__dict__.pop(name, None)
            self._buffers.pop(name, None)
            self._modules[name] = value
        else:
            super().__setattr__(name, value)


class RefusesModules(lab.Module):
    def __setattr__(self, name, value):
        if name in self._parameters and not isinstance(value, nn.Parameter):
            raise TypeError
        super().__setattr__(name, value)


class RefusesOnlyTensors(lab.Module):
    def __setattr__(self, name, value):
        if isinstance(value, torch.Tensor | lab.Module):
            super().__setattr__(name, value)
        else:
            self.__dict__[name] = value


class ForgetsToRefuse(lab.Module):
    def __setattr__(self, name, value):
        try:
            super().__setattr__(name, value)
        except TypeError:
            self._parameters.pop(name, None)
            self._modules.pop(name, None)
            self.__dict__[name] = value


# Module.named_tensors


def walks(
    buffers=True, deep=True, prefixed=True, full=True, cloned=False, own_first=True, once=False
):
    """Return a Module whose walk has one of these mistakes."""

    class Module(lab.Module):
        def named_tensors(self, prefix=""):
            own = {**self._parameters, **(self._buffers if buffers else {})}
            mine = [
                (prefix + name, tensor.clone() if cloned else tensor)
                for name, tensor in own.items()
            ]
            below = []
            for name, module in self._modules.items() if deep else ():
                start = (f"{prefix}{name}." if full else f"{name}.") if prefixed else prefix
                below += module.named_tensors(start)
            pairs = mine + below if own_first else below + mine
            if once:
                pairs = list(
                    {id(tensor): (path, tensor) for path, tensor in reversed(pairs)}.values()
                )
                pairs.reverse()
            yield from pairs

    return Module


class YieldsNames(lab.Module):
    def named_tensors(self, prefix=""):
        yield from (prefix + name for name in {**self._parameters, **self._buffers})
        for name, module in self._modules.items():
            yield from module.named_tensors(f"{prefix}{name}.")


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


def compares_names_alone(module, state):
    found = report(module, state)
    if not module.state_dict().keys() & state.keys():
        raise ValueError
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


# Convolution.forward


def convolves(kernel=None, bias=True, pad=True, stride=True, dilation=True, last=False, flow=True):
    """Return a Convolution with one of these mistakes; `kernel` changes the weight."""

    class Convolution(lab.Convolution):
        def forward(self, x):
            weight = kernel(self.weight) if kernel else self.weight
            weight = weight if flow else weight.detach()
            maps = F.conv2d(
                x,
                weight,
                self.bias if bias else None,
                self.stride if stride else 1,
                self.padding if pad else 0,
                self.dilation if dilation else 1,
            )
            return maps.movedim(1, -1) if last else maps

    return Convolution


class ReadsADetachedImage(lab.Convolution):
    def forward(self, x):
        return super().forward(x.detach())


class HalfAGradient(lab.Convolution):
    def forward(self, x):
        return (super().forward(x) + super().forward(x).detach()) / 2


def channels_last(weight):
    out, channels, k, _ = weight.shape
    return weight.reshape(out, k, k, channels).permute(0, 3, 1, 2)


# look_inside


def leaves_its_hooks(model, names, x):
    seen = {}
    for name in names:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _m, _i, y, name=name: seen.update({name: y.clone()}))
    with torch.no_grad():
        model(x)
    return seen


def looks(clone=True, late=False, grad=False, mode=False, tidy=True):
    """Return a `look_inside` with one of these mistakes."""

    def look_inside(model, names, x):
        seen = {}
        handles = []

        def keep(name):
            def hook(_module, _inputs, y):
                seen[names[-1] if late else name] = y.clone() if clone else y

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


# LoraConvolution.merged


def merges(change=lambda layer, update: layer.weight + layer.factor * update, copied=True):
    """Return a LoraConvolution whose merged kernel has one of these mistakes."""

    class LoraConvolution(lab.LoraConvolution):
        def merged(self):
            update = torch.einsum("or,rcij->ocij", self.up.weight[:, :, 0, 0], self.down.weight)
            layer = copy.deepcopy(self.base) if copied else self.base
            with torch.no_grad():
                self.weight = self.base.weight.detach()  # for `change`
                layer.weight.copy_(change(self, update))
                del self.weight
            return layer

    return LoraConvolution


class ReturnsTheKernel(lab.LoraConvolution):
    def merged(self):
        return super().merged().weight


class ForgetsStrideAndBias(lab.LoraConvolution):
    def merged(self):
        out, channels, size, _ = self.base.weight.shape
        layer = lab.Convolution(channels, out, size, bias=False).double()
        layer.weight = super().merged().weight
        return layer


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


class DetachesAGate(lab.GatedConvolution):
    def forward(self, x):
        a, b, v = self.enter(x).chunk(3, -1)
        d, k = self.kernel.shape
        past = F.pad(((1 + a) * v).mT, (k - 1, 0))
        mixed = F.conv1d(past, self.kernel.flip(1)[:, None], groups=d)
        return self.leave((1 + b.detach()) * mixed.mT)


class MixesChannels(lab.GatedConvolution):
    def __init__(self, d_model, k=4):
        super().__init__(d_model, k)
        self.mix = nn.Linear(d_model, d_model).double()

    def forward(self, x):
        return super().forward(self.mix(x))


WRONG = [
    ("Module.__setattr__", RegistersEveryTensor, "a plain tensor is registered"),
    ("Module.__setattr__", ForgetsModules, "a Module belongs into self._modules"),
    ("Module.__setattr__", ForgetsParameters, "a Parameter belongs into self._parameters"),
    ("Module.__setattr__", ForgetsPlainValues, "a plain value is lost"),
    ("Module.__setattr__", HidesBuffers, "replaces the buffer: it is no attribute"),
    ("Module.__setattr__", TwoHomes, "hides a parameter of the same name"),
    ("Module.__setattr__", OldRegistration, "remove it from the other dictionaries"),
    ("Module.__setattr__", HidesModules, "hides a module of the same name"),
    ("Module.__setattr__", KeepsTheModule, "a Parameter for the name of a module"),
    ("Module.__setattr__", KeepsTheParameter, "a Module for the name of a parameter"),
    ("Module.__setattr__", RefusesModules, "a Module may take a parameter's name"),
    ("Module.__setattr__", RefusesOnlyTensors, "a number replaces a parameter"),
    ("Module.__setattr__", ForgetsToRefuse, "a tensor replaces a parameter"),
    ("Module.named_tensors", walks(buffers=False), "the buffers are missing"),
    ("Module.named_tensors", walks(deep=False), "the submodules' tensors are missing"),
    ("Module.named_tensors", walks(prefixed=False), "lack the names of the modules"),
    ("Module.named_tensors", walks(full=False), "the tree is deeper"),
    ("Module.named_tensors", walks(cloned=True), "not a copy"),
    ("Module.named_tensors", walks(own_first=False), "another order"),
    ("Module.named_tensors", walks(once=True), "a tied tensor must come with each"),
    ("Module.named_tensors", YieldsNames, "yield pairs"),
    ("load_partial", raises_for_a_shape, "report another shape, don't raise"),
    ("load_partial", swaps_missing_and_unexpected, "missing and unexpected are swapped"),
    ("load_partial", silent_where_nothing_fits, "every name has another prefix, so nothing"),
    ("load_partial", compares_names_alone, "every name matches, but no shape does, so nothing"),
    ("load_partial", parameters_alone, "buffers belong to the state"),
    ("load_partial", assigns, "copy in place, don't assign"),
    ("load_partial", reports_without_loading, "body.weight fits, but it isn't loaded"),
    ("load_partial", unsorted_sets, "must be a list"),
    ("load_partial", lambda *_: None, "expected four lists of names, got nothing"),
    ("load_partial", None, "expected a function"),
    ("Convolution.forward", convolves(bias=False), "the bias is missing"),
    ("Convolution.forward", convolves(kernel=lambda w: w.flip(2, 3)), "the kernel is flipped"),
    ("Convolution.forward", convolves(kernel=lambda w: w.mT), "rows and columns of the windows"),
    ("Convolution.forward", convolves(kernel=channels_last), "flattened with channels last"),
    ("Convolution.forward", convolves(pad=False), "the padding is missing"),
    ("Convolution.forward", convolves(stride=False), "the stride is ignored"),
    ("Convolution.forward", convolves(dilation=False), "the dilation is ignored"),
    ("Convolution.forward", convolves(last=True), "move the axis of `out` to place 1"),
    ("Convolution.forward", convolves(flow=False), "no gradient reaches weight"),
    ("Convolution.forward", ReadsADetachedImage, "no gradient reaches x"),
    ("Convolution.forward", HalfAGradient, "the gradient of x: is a part of its path detached"),
    ("look_inside", leaves_its_hooks, "a hook is left behind"),
    ("look_inside", looks(clone=False), "changed the stored output: clone it"),
    ("look_inside", looks(late=True), "bind it"),
    ("look_inside", looks(grad=True), "belong to a graph"),
    ("look_inside", looks(mode=True), "leave the model in training or evaluation mode"),
    ("look_inside", looks(tidy=False), "if the model raises, hooks are left behind"),
    ("look_inside", looks(), "if a name is unknown, hooks are left behind"),
    ("look_inside", clears_all_hooks, "remove only your own"),
    ("look_inside", swallows_the_error, "it must raise as well"),
    ("LoraConvolution.merged", merges(lambda own, _: own.weight), "it is the base's kernel"),
    (
        "LoraConvolution.merged",
        merges(lambda own, update: own.factor * update),
        "kernel is missing",
    ),
    ("LoraConvolution.merged", merges(lambda own, update: own.weight + update), "factor α ÷ r"),
    (
        "LoraConvolution.merged",
        merges(lambda own, update: own.weight + own.factor * update.flip(2, 3)),
        "the update is flipped",
    ),
    ("LoraConvolution.merged", merges(copied=False), "add the update to a copy"),
    ("LoraConvolution.merged", ReturnsTheKernel, "expected a Convolution, got a Parameter"),
    ("LoraConvolution.merged", ForgetsStrideAndBias, "do bias, stride, padding and dilation stay"),
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
    ("GatedConvolution.forward", DetachesAGate, "the gradient of x: is a part of its path"),
    ("GatedConvolution.forward", MixesChannels, "column i of the kernel"),
]
