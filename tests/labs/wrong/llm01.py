"""Wrong solutions of LLM01, each with the message that names its mistake."""

import math

from labs.llm01_inference import lesson as lab

import torch


def nucleus(logits, keep):
    """Return top_p's result by another rule: keep(shares, running sums), both sorted -> bool."""
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(
        -1, where, keep(share, share.cumsum(-1))
    )
    return logits.masked_fill(~kept, -math.inf)


def without_the_crossing_token(logits, p):
    return nucleus(logits, lambda _, sums: sums <= p)


def order_forgotten(logits, p):
    share = logits.softmax(-1).sort(-1, descending=True).values
    return logits.masked_fill(share.cumsum(-1) - share >= p, -math.inf)


def each_probability_compared_with_p(logits, p):
    share = logits.softmax(-1)
    top = share == share.amax(-1, keepdim=True)
    return logits.masked_fill(~(top | (share >= p)), -math.inf)


def returns_probabilities(logits, p):
    return lab.top_p(logits, p).softmax(-1)


def mask_gathered(logits, p):
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    outside = share.cumsum(-1) - share >= p
    return logits.masked_fill(outside.gather(-1, where), -math.inf)


def added_up_unsorted(logits, p):
    share = logits.softmax(-1)
    return logits.masked_fill(share.cumsum(-1) - share >= p, -math.inf)


def cuts_to_zero(logits, p):
    out = lab.top_p(logits, p)
    return out.masked_fill(out == -math.inf, 0.0)


def cuts_in_place(logits, p):
    return logits.copy_(lab.top_p(logits, p))


def over_the_batch(logits, p):
    return lab.top_p(logits.flatten(), p).view(logits.shape)


def penalised(change, once=True):
    def repetition_penalty(ids, logits, penalty):
        logits = logits.clone()
        for row, scores in zip(ids.tolist(), logits, strict=True):
            for token in set(row) if once else row:
                scores[token] = change(scores[token], penalty)
        return logits

    return repetition_penalty


def all_rows_alike(ids, logits, penalty):
    return lab.repetition_penalty(ids.flatten().expand(len(ids), -1), logits, penalty)


def every_token(_ids, logits, penalty):
    return torch.where(logits < 0, logits * penalty, logits / penalty)


def written(start=None, at_once=False, over=False, skip_stop=False, prompt_too=False, row=-1):
    """Return a generate with a mistake in one of its steps."""

    def generate(model, prompt, new, choose=lab.greedy, stop=()):
        ids = list(prompt)
        rounds = range(new if start is None else new + start)
        out = list(prompt) if prompt_too else []
        for _ in rounds:
            token = choose(ids, lab.logits_of(model, ids)[row])
            if not over:
                ids.append(token)
            if token in stop and skip_stop:
                break
            out.append(token)
            if token in stop:
                break
        return iter(out)

    def streaming(model, prompt, new, choose=lab.greedy, stop=()):
        yield from generate(model, prompt, new, choose, stop)

    return generate if at_once else streaming


def never_stops(model, prompt, new, choose=lab.greedy, stop=()):
    del stop
    return lab.generate(model, prompt, new, choose)


def always_greedy(model, prompt, new, choose=lab.greedy, stop=()):
    del choose
    return lab.generate(model, prompt, new, lab.greedy, stop)


def changes_the_prompt(model, prompt, new, choose=lab.greedy, stop=()):
    for token in lab.generate(model, prompt, new, choose, stop):
        prompt.append(token)
        yield token


def stops_at_the_prompt(model, prompt, new, choose=lab.greedy, stop=()):
    if prompt[-1] not in stop:
        yield from lab.generate(model, prompt, new, choose, stop)


def counts_the_prompt(model, prompt, new, choose=lab.greedy, stop=()):
    return lab.generate(model, prompt, new - len(prompt), choose, stop)


def passes_all_rows(model, prompt, new, choose=lab.greedy, stop=()):
    ids = list(prompt)
    for _ in range(new):
        ids.append(choose(ids, lab.logits_of(model, ids)))
        yield ids[-1]
        if ids[-1] in stop:
            return


def drawn(logits_at):
    """Return a sample whose distribution is the softmax of `logits_at(logits, temperature)`."""

    def sample(logits, temperature=1.0, times=1):
        if temperature == 0:
            return lab.sample(logits, 0.0, times)
        return lab.sample(logits_at(logits, temperature), 1.0, times)

    return sample


def divides_by_zero(logits, temperature=1.0, times=1):
    p = (logits / temperature).softmax(-1)
    return torch.multinomial(p, times, replacement=True)


def always_the_likeliest(logits, temperature=1.0, times=1):
    del temperature
    return lab.sample(logits, 0.0, times)


def a_number_for_all_rows(logits, temperature=1.0, times=1):
    if temperature == 0:
        return lab.sample(logits, 0.0, times)
    ends = (logits / temperature).softmax(-1).double().cumsum(-1)
    u = torch.rand(times, dtype=torch.float64).expand(*logits.shape[:-1], times)
    return torch.searchsorted(ends, u.contiguous(), right=True).clamp(max=logits.shape[-1] - 1)


def numbers_not_ids(logits, temperature=1.0, times=1):
    if temperature == 0:
        return lab.sample(logits, 0.0, times)
    return torch.rand(*logits.shape[:-1], times)


def searched(right=True, double=True):
    """Return a sample that searches on another side, or adds up in the logits' own precision."""

    def sample(logits, temperature=1.0, times=1):
        if temperature == 0:
            return lab.sample(logits, 0.0, times)
        p = (logits / temperature).softmax(-1)
        ends = (p.double() if double else p).cumsum(-1)
        u = torch.rand(*logits.shape[:-1], times, dtype=torch.float64) * ends[..., -1:]
        return torch.searchsorted(ends, u.to(ends), right=right)

    return sample


def divides_in_place(logits, temperature=1.0, times=1):
    if temperature == 0:
        return lab.sample(logits, 0.0, times)
    result = lab.sample(logits, temperature, times)
    logits /= 2
    return result


def chat(change):
    return lambda messages: change(lab.build_chat(messages))


HEADER = "<|im_start|>assistant\n"


def opens_every_turn(messages):
    return "".join(lab.build_chat([message]) for message in messages)


def adds_a_system_message(messages):
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": "Be helpful."}, *messages]
    return lab.build_chat(messages)


def strips(messages):
    return lab.build_chat([{**one, "content": one["content"].strip()} for one in messages])


def compared(
    gain=lambda a, b: int(a) - int(b),
    mean=lambda gains: sum(gains) / len(gains),
    error=lambda squares, n: (squares / (n - 1) / n) ** 0.5,
):
    """Return a difference with a mistake in one of its steps."""

    def difference(first, second):
        gains = [gain(a, b) for a, b in zip(first, second, strict=True)]
        middle = sum(gains) / len(gains)
        squares = sum((gain - middle) ** 2 for gain in gains)
        return mean(gains), error(squares, len(gains))

    return difference


def unpaired(first, second):
    n = len(first)
    a, b = sum(first) / n, sum(second) / n
    return a - b, ((a * (1 - a) + b * (1 - b)) / n) ** 0.5


def expands_two_axes(logits, temperature=1.0, times=1):
    if temperature == 0:
        return logits.argmax(-1, keepdim=True).expand(-1, times)
    return lab.sample(logits, temperature, times)


def two_axes_at_most(logits, temperature=1.0, times=1):
    if temperature == 0:
        return logits.argmax(-1, keepdim=True).expand(*logits.shape[:-1], times)
    return torch.multinomial((logits / temperature).softmax(-1), times, replacement=True)


def one_u_for_all_rows(logits, temperature=1.0, times=1):
    if temperature == 0:
        return lab.sample(logits, 0.0, times)
    ends = (logits / temperature).softmax(-1).double().cumsum(-1)
    return torch.searchsorted(ends, torch.rand(times, dtype=torch.float64), right=True)


def logits_added_up(logits, p):
    ordered, where = logits.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= p
    return logits.masked_fill(outside.gather(-1, where.argsort(-1)), -torch.inf)


def keeps_the_least_likely(logits, p):
    ordered, where = logits.sort(-1)
    share = ordered.softmax(-1)
    outside = share.cumsum(-1) - share >= p
    return logits.masked_fill(outside.gather(-1, where.argsort(-1)), -torch.inf)


def penalises_in_place(ids, logits, penalty):
    logits[:] = lab.repetition_penalty(ids, logits, penalty)
    return logits


def cuts_beyond_p(logits, p):
    ordered, where = logits.sort(-1, descending=True)
    share = ordered.softmax(-1)
    outside = share.cumsum(-1) - share > p
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, where, outside)
    return logits.masked_fill(kept, -torch.inf)


def guessed(row=-1, p=lambda logits: logits.softmax(-1)[-1]):
    """Return a next_token that takes its id from a row of logits (T, V), its p from `p(logits)`."""

    def next_token(model, ids):
        logits = lab.logits_of(model, ids)
        best = int(logits[row].argmax())
        return best, float(p(logits)[best])

    return next_token


def of_all_positions(model, ids):
    p = lab.logits_of(model, ids).softmax(-1)
    return int(p.argmax()), float(p.max())


def appends_the_guess(model, ids):
    best, p = lab.next_token(model, ids)
    ids.append(best)
    return best, p


WRONG = [
    ("next_token", guessed(row=0), "logits of the first position"),
    ("next_token", of_all_positions, "over all positions together"),
    ("next_token", guessed(p=lambda x: x[-1]), "this is the logit"),
    ("next_token", guessed(p=lambda x: x.softmax(0)[-1]), "over the positions: use"),
    (
        "next_token",
        lambda model, ids: lab.next_token(model, ids)[::-1],
        "returned the probability first",
    ),
    ("next_token", lambda model, ids: lab.next_token(model, ids)[0], "expected two numbers"),
    ("next_token", appends_the_guess, "changed the ids"),
    ("generate", written(over=True), "call the model on all ids so far"),
    ("generate", written(start=-1), "does the loop start at 0"),
    ("generate", written(start=1), "runs too often"),
    ("generate", written(at_once=True), "before the first was yielded"),
    ("generate", written(skip_stop=True), "stop token itself is missing"),
    ("generate", written(prompt_too=True), "the prompt was yielded"),
    ("generate", written(row=0), "logits of the first token"),
    ("generate", counts_the_prompt, "doesn't count the prompt"),
    ("generate", passes_all_rows, "must get the logits"),
    ("generate", never_stops, "goes on after a stop token"),
    ("generate", stops_at_the_prompt, "in the prompt doesn't count"),
    ("generate", always_greedy, "the choice was ignored"),
    ("generate", changes_the_prompt, "changed the prompt"),
    ("generate", lambda *_args, **_options: None, "must yield ids"),
    ("sample", drawn(lambda x, t: x * t), "multiplied by the temperature"),
    ("sample", drawn(lambda x, _: x), "temperature is ignored"),
    ("sample", drawn(lambda x, t: x.softmax(-1) / t), "acts on the probabilities"),
    ("sample", drawn(lambda x, _: 0 * x), "equally likely"),
    ("sample", divides_by_zero, "temperature 0 failed"),
    ("sample", always_the_likeliest, "greedy decoding"),
    ("sample", a_number_for_all_rows, "the same random number"),
    ("sample", numbers_not_ids, "search for the stretch"),
    ("sample", divides_in_place, "changed its input"),
    ("sample", searched(right=False), "at u = 0"),
    ("sample", searched(double=False), "before cumsum"),
    ("sample", two_axes_at_most, "logits with three axes failed"),
    ("sample", expands_two_axes, "at T = 0, logits with three axes failed"),
    ("sample", one_u_for_all_rows, "u needs two rows"),
    ("top_p", cuts_beyond_p, "of two equal tokens"),
    ("top_p", logits_added_up, "the softmax makes probabilities"),
    ("top_p", keeps_the_least_likely, "the least likely tokens stay"),
    ("top_p", without_the_crossing_token, "crosses p is missing"),
    ("top_p", order_forgotten, "scatter it back"),
    ("top_p", mask_gathered, "with scatter"),
    ("top_p", added_up_unsorted, "added up unsorted"),
    ("top_p", each_probability_compared_with_p, "add them up first"),
    ("top_p", returns_probabilities, "got probabilities"),
    ("top_p", cuts_to_zero, "0 doesn't remove a token"),
    ("top_p", cuts_in_place, "changed its input"),
    ("top_p", lambda _logits, _p: None, "nothing"),
    ("repetition_penalty", penalised(lambda x, p: x / p), "a negative logit got larger"),
    ("repetition_penalty", penalised(lambda x, p: x * p), "a positive logit got larger"),
    ("repetition_penalty", penalised(lambda x, p: x / p if x < 0 else x * p), "wrong way round"),
    ("repetition_penalty", penalised(lambda x, p: x * p if x < 0 else x / p, once=False), "twice"),
    ("repetition_penalty", penalises_in_place, "write to a copy"),
    ("repetition_penalty", every_token, "every token is penalised"),
    ("repetition_penalty", all_rows_alike, "ids of all rows"),
    ("repetition_penalty", penalised(lambda x, p: x - p), "the penalty is subtracted"),
    ("build_chat", chat(lambda text: text.removesuffix(HEADER)), "open the assistant's turn"),
    ("build_chat", chat(lambda text: text + "<|im_end|>\n"), "the assistant's turn is closed"),
    ("build_chat", chat(lambda text: text.replace("<|im_end|>\n", "<|im_end|>")), "line end after"),
    ("build_chat", chat(lambda text: text.replace("<|im_end|>", "")), "each turn ends with it"),
    ("build_chat", chat(lambda text: text.removesuffix("\n")), "after the last `assistant`"),
    ("build_chat", opens_every_turn, "every turn opens"),
    ("build_chat", adds_a_system_message, "a system message was added"),
    ("build_chat", strips, "was stripped"),
    ("difference", compared(error=lambda squares, n: (squares / n / n) ** 0.5), "by n − 1"),
    ("difference", unpaired, "for different questions"),
    ("difference", compared(error=lambda squares, n: (squares / (n - 1)) ** 0.5), "root of n"),
    ("difference", compared(error=lambda squares, n: squares / (n - 1) / n), "its square root"),
    ("difference", compared(gain=lambda a, b: int(b) - int(a)), "wrong way round"),
    ("difference", compared(gain=lambda a, b: int(a != b)), "sizes of the differences"),
    ("difference", compared(mean=sum), "divide it by n"),
    ("difference", lambda a, b: lab.difference(a, b)[0], "expected two numbers"),
]
