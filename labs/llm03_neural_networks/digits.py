"""Small images of digits to train on, and the share that a classifier reads correctly."""

from collections.abc import Sequence

from labs.kit import Run, assets

import torch
from torch import Tensor, nn

TRAIN = 1437  # of 1,797 images: four fifths
MIDDLE = {27, 28, 35, 36}  # the four pixels in the middle of 8 × 8


def split_digits(run: Run, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training images (1437, 64) and labels, test images (360, 64) and labels."""
    images, labels = assets.digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    x = images.flatten(1)[order].to(run.device)  # (1797, 8, 8) -> (1797, 64)
    y = labels[order].to(run.device)
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of images whose largest logit, (B, 10), is at their label, (B,)."""
    return (logits.argmax(-1) == labels).float().mean().item()


def percent(shares: Sequence[float]) -> str:
    """Return the range of some shares in percent, such as "94 to 95 %"."""
    lowest = f"{100 * min(shares):.0f}"
    highest = f"{100 * max(shares):.0f}"
    return f"{highest} %" if lowest == highest else f"{lowest} to {highest} %"


def mean_images(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean of the images of each digit, (10, 64)."""
    return torch.stack([x[y == digit].mean(0) for digit in range(10)])


def centred(w: Tensor) -> Tensor:
    """Subtract from each row of w, (10, 64), the mean of all rows."""
    return w - w.mean(0)


def own_logits(logits: Tensor) -> int:
    """Return how many of ten images have their largest logit, (10, 10), at their own place."""
    own = torch.arange(10, device=logits.device)
    return int((logits.argmax(-1) == own).sum())


def darkest_in_the_middle(row: Tensor) -> int:
    """Return how many of the four smallest of 64 weights belong to the pixels in the middle."""
    return len(MIDDLE & set(row.argsort()[:4].tolist()))


def share_read(right: Tensor, before: Tensor) -> float:
    """Return the share of the images that were right before, (B,), that are right, (B,)."""
    return ((right & before).sum() / before.sum()).item()


def check_blank_pixels(run: Run, x: Tensor, layer: nn.Module, start: nn.Module) -> None:
    """Check that training changed the weights of a pixel exactly if some image has ink there."""
    blank = x.amax(0) == 0  # (64,)
    changes = (layer.get_parameter("weight") - start.get_parameter("weight")).abs().amax(0)  # (64,)
    largest = changes[blank].max()
    because = "dw = gᵀx, and x is 0 there"
    name = "pixels blank in all training images: largest change"
    run.check(name, largest, at_most=0, because=because)
    least = changes[~blank].min()
    because = "x isn't 0 there; float32 rounds weights of 0.1 to 1e-8"
    run.check("other pixels: smallest change", least, at_least=1e-8, because=because)
