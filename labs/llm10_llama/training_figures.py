"""Show a training of LLM10: its curve against the ladder, as a figure, a view and a table."""

import math
from collections.abc import Mapping

from labs.kit import Run
from labs.llm10_llama import figures, view_data
from labs.llm10_llama.ladder import corpus, judged_on, looked_at
from labs.llm10_llama.parts import parameters
from labs.llm10_llama.samples import written
from labs.llm10_llama.training import Trained, rates, sizes


def show(run: Run, result: Trained, lines: Mapping[str, float], loss: float) -> None:
    """Record the curve of a training, its speed, and the losses beside it.

    Args:
        run: the run.
        result: the training.
        lines: the losses of other models, by name.
        loss: of the trained model.
    """
    config, recipe = sizes(run)
    each = recipe.batch * config.context  # tokens of a step
    speed = recipe.steps * each / result.seconds
    run.measure("tokens per second in training", speed, timed=True)
    work = 6 * parameters(result.model) * speed / 1e9
    run.measure("at 6·N operations a token", work, unit="GFLOP/s", timed=True)
    judged = len(judged_on(run))
    looked = len(looked_at(run))
    place = f"{looked:,} tokens of the validation text"
    seen = written(result)
    run.figure(
        figures.descent(result.losses, {n: loss for n, (loss, _) in seen.items()}, lines, each),
        "descent",
        f"Line: the loss in training. Dots: on {place}. Dotted: counting, on the {judged:,} tokens "
        "of the final loss.",
        alt="Training and validation loss over tokens seen, on a log scale, falling past dotted "
        "lines, one for each counting model.",
    )
    run.view("curve", "training", *view_data.curve(result.losses, rates(recipe), seen, lines))
    bits = math.log(2) * corpus(run).bytes_per_token
    rows = [[name, x, x / bits] for name, x in {**lines, "this model": loss}.items()]
    title = f"On {judged:,} tokens of the last tenth of {corpus(run).name}"
    run.table(title, ["", "nats per token", "bits per byte"], rows)
