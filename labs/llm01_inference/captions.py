"""The captions of LLM01's and LLM01+'s figures, and their texts for readers who can't see them."""

CAPTIONS: dict[str, tuple[str, str]] = {  # by figure: caption, alt text
    "parameters": (
        "The parameters of {model}, by parts that the later labs build and explain.",
        "A bar of millions of parameters for each part.",
    ),
    "pipeline": (
        "From text to probabilities, in {model}.",
        "Tokens, their ids, the model, the likeliest next token after each; bars for the last.",
    ),
    "loop": (
        "The greedy loop: each call adds the token on the right to the text.",
        "A row for each step: the text so far, the added token, and a bar for its probability.",
    ),
    "stretches": (
        "A random number u = 0.7 and three temperatures, with the logits 2, 1 and 0.",
        "Three lines from 0 to 1, cut into three stretches; u falls on the first or the second.",
    ),
    "temperature": (
        "The next token of {model}: the five likeliest, and all others together.",
        "Bars of probability at three temperatures. At T = 2 nearly all is in “all others”.",
    ),
    "nucleus": (
        "The next token of {model} after two prompts. Thick: what top-p 0.9 keeps.",
        "Two falling curves of probability over rank; one is thick for a few tokens, one for many.",
    ),
    "defaults": (
        "Each dot is a token that `generate` drew after “{prompt}”, in {model}.",
        "Two clouds of dots by rank: one ends at rank 50, the other reaches ranks of thousands.",
    ),
    "penalty": (
        "What a penalty of 1.3 does to a logit. Above the diagonal it is a reward.",
        "Logit after over logit before: division is above the diagonal for negative logits.",
    ),
    "accuracy": (
        "The same questions to {model} in {forms} forms. Among so many comparisons, chance may put "
        "one beyond two standard errors. Where no reply is right, the error by the formula is 0, "
        "so the error bar shows the 95% limit, 3 ÷ the number of questions.",
        "Each form's accuracy and its difference from zero-shot, both with ± 2 standard errors.",
    ),
    "entropy": (
        "Entropy of the next token of {model} after three prompts. Grey: the slope Var/T³ at T = "
        "0.5, 1 and 2.",
        "Three curves of entropy over temperature that rise from 0 towards ln V; at three "
        "temperatures each touches a line with the slope Var/T³.",
    ),
    "cache": (
        "Orange: positions that a call computes. White: positions whose keys and values come from "
        "the cache. The first call is the prefill.",
        "Two grids: without a cache each row is full; with one each row after the first has 1.",
    ),
    "padding": (
        "Prompts of 3 and 5 tokens, padded on the left. The mask is 1 where a box is coloured. The "
        "numbers are the position ids. Padding has position 0, which the mask hides.",
        "Two rows of five boxes: in the first, two of padding, then positions 0 to 2; in the "
        "second, positions 0 to 4.",
    ),
    "beams": (
        "Beam search with n = 2, in the example of the text: blue beginnings are kept. The "
        "probability of a text is the product of those of its tokens.",
        "A tree of two steps. A with 0.5 and B with 0.4 are kept, then B x with 0.36 and A x with "
        "0.20.",
    ),
    "next_token": (
        "{model}, one text, {precision}, on the run's device: medians of paired repeats, and their "
        "range.",
        "Time for the next token without a cache divided by that with one, over the number of "
        "tokens so far, on log scales.",
    ),
    "likelihood": (
        "{model}, {texts} texts of {tokens} tokens for each setting; large: medians.",
        "Scatter plot of mean ln p over distinct 2-grams: greedy text is likeliest and least "
        "diverse, text at T = 1 is diverse and less likely.",
    ),
    "bits": (
        "{size:,} bytes of Shakespeare.",
        "Bars of bits per byte for the uniform model, unigram, bigram, the language model with two "
        "strides, and the glass model.",
    ),
    "rounding": (
        "What rounding {model} costs, with the errors of the rounding, with their other sign, and "
        "as the mean of both. Bars: two standard errors over {texts} texts. A cost ∝ ε² has the "
        "slope 1; the grey line goes through the blue point of 4 bits. At 3 bits the model "
        "is worse than a uniform one: there the law needn't hold. Only the layers' matrices are "
        "rounded. Blocks have 32 weights. Costs below two standard errors aren't drawn.",
        "Cost in nats over the squared relative error, on log scales, for 8, 4 and 3 bits, and a "
        "grey line with the slope 1 through the mean of both signs at 4 bits.",
    ),
}
