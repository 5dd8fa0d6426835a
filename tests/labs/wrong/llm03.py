"""Plausible wrong solutions of LLM03's exercises, each with the message that names its mistake."""

import math

from labs.llm03_neural_networks import lesson as lab

import torch


def rows_meet_rows(a, b):
    return lab.matmul_loops(a, b.T if a.shape == b.shape else b)


def number_by_number(a, b):
    return a * b if a.shape == b.shape else lab.matmul_loops(a, b)


def last_term_missing(a, b):
    y = a.new_zeros(a.shape[0], b.shape[1])
    for i in range(a.shape[0]):
        for k in range(b.shape[1]):
            for j in range(a.shape[1] - 1):
                y[i, k] += a[i, j] * b[j, k]
    return y


def square_alone(a, b):
    y = a.new_zeros(a.shape)
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(a.shape[1]):
                y[i, k] += a[i, j] * b[j, k]
    return y


def by_the_library(a, b):
    return a @ b


def float64_in_any_case(a, b):
    return lab.matmul_loops(a.double(), b.double())


def sum_forgotten(a, b):
    return a[:, :, None] * b


def last_axis_summed(a, b):
    return (a[:, :, None] * b).sum(-1)


def transposed_by_accident(a, b):
    return (b.T[:, :, None] * a.T).sum(1)


def mean_for_sum(a, b):
    return (a[:, :, None] * b).mean(1)


def a_loop_all_the_same(a, b):
    rows = [sum(a[i, j] * b[j] for j in range(a.shape[1])) for i in range(a.shape[0])]
    return torch.stack(rows)


def loops_over_lists(a, b):
    rows = a.tolist()
    columns = b.T.tolist()
    y = [[sum(map(float.__mul__, row, column)) for column in columns] for row in rows]
    return torch.tensor(y, dtype=a.dtype)


def an_axis_of_one_forgotten(a, b):
    return (a * b).sum(1)


def padded(a, b):
    """Align two shapes at the right."""
    axes = max(len(a), len(b))
    return (1,) * (axes - len(a)) + a, (1,) * (axes - len(b)) + b


def aligned_at_the_left(a, b):
    axes = max(len(a), len(b))
    return lab.broadcast_shape(a + (1,) * (axes - len(a)), b + (1,) * (axes - len(b)))


def the_larger_of_two(a, b):
    a, b = padded(a, b)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise ValueError
    return tuple(max(pair) for pair in zip(a, b, strict=True))


def errors_are_none(a, b):
    try:
        return lab.broadcast_shape(a, b)
    except ValueError:
        return None


def shapes_must_be_as_long(a, b):
    assert len(a) == len(b), "as many axes"
    return lab.broadcast_shape(a, b)


def only_the_second_is_stretched(a, b):
    b = (1,) * (len(a) - len(b)) + b
    if any(n not in (1, m) for m, n in zip(a, b, strict=False)):
        raise ValueError
    return a


def multiples_fit(a, b):
    a, b = padded(a, b)
    if any(m != n and (0 in (m, n) or max(m, n) % min(m, n)) for m, n in zip(a, b, strict=True)):
        return lab.broadcast_shape(a, b)
    return tuple(n if m == 1 else max(m, n) * (n > 0) for m, n in zip(a, b, strict=True))


class ReplacesTheParameters(lab.Linear):
    def reset_parameters(self):
        m, n = self.weight.shape
        bound = 1 / math.sqrt(n)
        self.weight = torch.nn.Parameter(torch.empty(m, n).uniform_(-bound, bound))
        self.bias = torch.nn.Parameter(torch.empty(m).uniform_(-bound, bound))


def start(weight, bias=None):
    """Return a Linear whose two parameters are filled by these functions of (tensor, n)."""

    class Start(lab.Linear):
        def reset_parameters(self):
            n = self.weight.shape[1]
            with torch.no_grad():
                weight(self.weight, n)
                (bias or weight)(self.bias, n)

    return Start


def uniform(tensor, n):
    tensor.uniform_(-1 / math.sqrt(n), 1 / math.sqrt(n))


class GradientsOn(lab.Linear):
    def reset_parameters(self):
        uniform(self.weight, self.weight.shape[1])


class ByTheOutputs(lab.Linear):
    def reset_parameters(self):
        with torch.no_grad():
            for tensor in self.parameters():
                uniform(tensor, self.weight.shape[0])


class BiasFirst(lab.Linear):
    def reset_parameters(self):
        with torch.no_grad():
            for tensor in (self.bias, self.weight):
                uniform(tensor, self.weight.shape[1])


class TransposeForgotten(lab.Linear):
    def forward(self, x):
        return x @ self.weight + self.bias


class BiasForgotten(lab.Linear):
    def forward(self, x):
        return x @ self.weight.T


class BiasAlongTheBatch(lab.Linear):
    def forward(self, x):
        return x @ self.weight.T + self.bias[:, None]


class OutputTransposed(lab.Linear):
    def forward(self, x):
        return self.weight @ x.T + self.bias[:, None]


class OnlyABatchOfRows(lab.Linear):
    def forward(self, x):
        return torch.einsum("bj,ij->bi", x, self.weight) + self.bias


class InputChanged(lab.Linear):
    def forward(self, x):
        y = x @ self.weight.T + self.bias
        x += 1
        return y


class CallsTheLibrary(lab.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight, self.bias)


class WithoutGradients(lab.Linear):
    def forward(self, x):
        return x @ self.weight.data.T + self.bias.data


def dx_by_the_transpose(x, w, g):
    _, dw, dbias = lab.linear_backward(x, w, g)
    return g @ w.T, dw, dbias


def only_batches_of_rows(x, w, g):
    return g @ w, torch.einsum("bi,bj->ij", g, x), g.sum(0)


def flattened_with_an_axis_at_least(x, w, g):
    rows = g.flatten(0, -2)
    return g @ w, rows.T @ x.flatten(0, -2), rows.sum(0)


def backward(change):
    """Return a backward whose three gradients are changed by a function of them, x and g."""
    return lambda x, w, g: change(*lab.linear_backward(x, w, g), x, g)


weights_transposed = backward(lambda dx, dw, dbias, _x, _g: (dx, dw.T, dbias))
averaged = backward(lambda dx, dw, dbias, _x, g: (dx, dw / g[..., 0].numel(), dbias))
bias_averaged = backward(lambda dx, dw, _, _x, g: (dx, dw, g.flatten(0, -2).mean(0)))
another_order = backward(lambda dx, dw, dbias, _x, _g: (dw, dx, dbias))
bias_not_summed = backward(lambda dx, dw, _, _x, g: (dx, dw, g))
summed_over_one_axis = backward(lambda dx, dw, _, _x, g: (dx, dw, g.sum(0)))
a_gradient_for_each_row = backward(lambda dx, _, dbias, x, g: (dx, g.mT @ x, dbias))


def scaled_in_place(x, w, g):
    dx, dw, dbias = lab.linear_backward(x, w, g)
    g.mul_(1.5)
    return dx, dw, dbias


def by_tensordot(a, b):
    return torch.tensordot(a, b, 1)


WRONG = [
    ("matmul_loops", rows_meet_rows, "b is transposed"),
    ("matmul_loops", number_by_number, "without a sum"),
    ("matmul_loops", last_term_missing, "a term too few"),
    ("matmul_loops", square_alone, "which is which"),
    ("matmul_loops", by_the_library, "write it yourself"),
    ("matmul_loops", float64_in_any_case, "expected dtype torch.float32"),
    ("matmul_broadcast", sum_forgotten, "sum over n"),
    ("matmul_broadcast", last_axis_summed, "over the wrong axis"),
    ("matmul_broadcast", transposed_by_accident, "the result is transposed"),
    ("matmul_broadcast", mean_for_sum, "the sum is a mean"),
    ("matmul_broadcast", a_loop_all_the_same, "without a loop"),
    ("matmul_broadcast", loops_over_lists, "calls tolist.* without a loop"),
    ("matmul_broadcast", an_axis_of_one_forgotten, "expected shape"),
    ("broadcast_shape", aligned_at_the_left, "aligned at the left"),
    ("broadcast_shape", the_larger_of_two, "the other size, not the larger"),
    ("broadcast_shape", errors_are_none, "a ValueError for .* got None"),
    ("broadcast_shape", shapes_must_be_as_long, "shapes may differ in length"),
    ("broadcast_shape", only_the_second_is_stretched, "the shorter shape may come first"),
    ("broadcast_shape", multiples_fit, "only 1 is stretched"),
    ("Linear.reset_parameters", ReplacesTheParameters, "replaces a parameter"),
    ("Linear.reset_parameters", GradientsOn, "under torch.no_grad"),
    ("Linear.reset_parameters", ByTheOutputs, "n is the number of inputs"),
    ("Linear.reset_parameters", BiasFirst, "sample the weight first"),
    (
        "Linear.reset_parameters",
        start(lambda t, n: t.normal_(std=1 / math.sqrt(n))),
        "sample it uniformly",
    ),
    (
        "Linear.reset_parameters",
        start(lambda t, n: t.uniform_(0, 1 / math.sqrt(n))),
        "never below",
    ),
    ("Linear.reset_parameters", start(lambda t, n: t.uniform_(-1 / n, 1 / n)), "not 1/n"),
    (
        "Linear.reset_parameters",
        start(uniform, lambda t, _n: t.zero_()),
        "the bias is all 0",
    ),
    ("Linear.reset_parameters", start(uniform, lambda _t, _n: None), "the bias isn't filled"),
    ("Linear.forward", TransposeForgotten, "is the transpose missing"),
    ("Linear.forward", BiasForgotten, "is the bias missing"),
    ("Linear.forward", BiasAlongTheBatch, "each output has a bias, not each input"),
    ("Linear.forward", OutputTransposed, "got the transpose"),
    ("Linear.forward", OnlyABatchOfRows, "any number of axes"),
    ("Linear.forward", InputChanged, "changed its input"),
    ("Linear.forward", CallsTheLibrary, "F.linear is this exercise"),
    ("Linear.forward", WithoutGradients, "no gradient reaches"),
    ("linear_backward", dx_by_the_transpose, "which factor is transposed"),
    ("linear_backward", only_batches_of_rows, "flatten all axes"),
    ("linear_backward", flattened_with_an_axis_at_least, "one input has no batch axis"),
    ("linear_backward", weights_transposed, "is dw transposed"),
    ("linear_backward", averaged, "is dw averaged"),
    ("linear_backward", bias_averaged, "is dbias averaged"),
    ("linear_backward", another_order, "the order is dx, dw, dbias"),
    ("linear_backward", bias_not_summed, "dbias has the shape of g"),
    ("linear_backward", summed_over_one_axis, "over the first axis only"),
    ("linear_backward", a_gradient_for_each_row, "a dw for each sequence"),
    ("linear_backward", scaled_in_place, "changed x, w or g"),
    ("matmul_loops", by_tensordot, "calls tensordot"),
]
