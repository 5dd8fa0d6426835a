"""One run of a lab, as its experiments see it: sizes, seeds, the device, its findings."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from common.options import Settings
from common.syllabus import Lesson
from labs.kit.run.console import Output
from labs.kit.run.findings import Findings
from labs.kit.run.run_folder import refusal

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

Value = TypeVar("Value")


class CheckpointFolder(Protocol):
    """A folder of checkpoints that is needed until the run has ended."""

    def release(self) -> None:
        """Leave it to the next run."""
        ...

    def remove(self) -> None:
        """Remove it with its checkpoints."""
        ...


class Run(Findings):
    """What an experiment gets: sizes, seeds, the device, and methods to record its findings.

    Args:
        settings: the options of the run.
        precision: of training and throughput: fp32, bf16 or fp16.
        output: the screen and the log.
        folder: the folder of the run.
        lesson: the lab that is run; None in a benchmark or a test.
    """

    def __init__(
        self,
        settings: Settings,
        precision: str,
        output: Output,
        folder: Path,
        lesson: Lesson | None = None,
    ) -> None:
        """Start a run; nothing is loaded or written yet."""
        super().__init__(output, folder)
        self.settings = settings
        self.lesson = lesson
        self.precision = precision
        self.checkpoint_folders: list[CheckpointFolder] = []
        self.logged = False
        self.why_precision = "as requested"

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings.seed

    @property
    def online(self) -> bool:
        """Whether the run may use the Hugging Face hub."""
        return self.settings.online

    @property
    def options(self) -> Any:
        """The options that this lab alone has; its folder's `__init__.py` declares them."""
        return self.settings.own

    @cached_property
    def accelerator(self) -> "Accelerator":
        """The run's one Accelerator; it places models and sets the precision of training."""
        from labs.kit.run.devices import make_accelerator

        board = self.folder if self.settings.tensorboard else None
        return make_accelerator(self.precision, self.seed, board)

    @property
    def device(self) -> "torch.device":
        """The device of the run's models."""
        return self.accelerator.device

    @contextmanager
    def small_products(self, width: int) -> Generator[None]:
        """Prepare models in fp32 within this block if bf16 doesn't pay for products of this size.

        It changes only the precision that `auto` chose on a CPU, by larger products.

        Args:
            width: of the matrices.
        """
        from labs.kit.run.devices import choose_precision

        from accelerate.utils import AutocastKwargs

        auto = self.settings.precision == "auto" and self.device.type == "cpu"
        if not auto or choose_precision("auto", width)[0] == self.precision:
            yield
            return
        accelerator: Any = self.accelerator
        before = self.precision, accelerator.autocast_handler
        self.precision = "fp32"
        accelerator.autocast_handler = AutocastKwargs(enabled=False)
        try:
            yield
        finally:
            self.precision, accelerator.autocast_handler = before

    @cached_property
    def size(self) -> str:
        """The size that was requested; by default "tiny" on a CPU and "small" on a GPU."""
        return self.settings.size or ("tiny" if self.device.type == "cpu" else "small")

    def share(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Return this process's part of a batch, (B, …) -> (B/N, …).

        N processes with a part each train as one process with the entire batch. Every process must
        have made the same batch, from the same seed.

        Raises:
            ValueError: if N doesn't divide B.
        """
        n = self.accelerator.num_processes
        if batch.shape[0] % n:
            raise ValueError(f"{n} processes can't share a batch of {batch.shape[0]} equally")
        return batch.chunk(n)[self.accelerator.process_index]

    def pick(self, tiny: Value, small: Value, full: Value) -> Value:
        """Return the value for this run's size."""
        return {"tiny": tiny, "small": small, "full": full}[self.size]

    def seeds(self, n: int) -> list[int]:
        """Return `n` seeds, for a claim that depends on chance: the run's own and the next ones."""
        return [(self.seed + i) % 2**32 for i in range(n)]

    def log(self, values: dict[str, float], step: int) -> None:
        """Log numbers of a training step for TensorBoard, if --tensorboard is given.

        Args:
            values: by name; "headline/loss" keeps the numbers of several trainings apart.
            step: the step.
        """
        if not self.settings.tensorboard:
            return
        try:
            self.accelerator.log(values, step)
            self.logged = True
        except OSError as error:
            reason = refusal(error, self.folder)
            if not reason:
                raise
            self.accelerator.trackers.clear()
            self.say(f"logging to TensorBoard stopped: {reason}")
