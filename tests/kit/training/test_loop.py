"""A training of small models has one thread at tiny, and what follows has as many as before."""

from pathlib import Path

from labs.course.options import Settings
from labs.kit import Run, on_one_thread
from labs.kit.run.console import Output

import pytest
import torch


@pytest.mark.parametrize(("size", "threads"), [("tiny", 1), ("small", 2)])
def test_only_at_tiny_a_training_has_one_thread(tmp_path: Path, size: str, threads: int) -> None:
    @on_one_thread
    def train(_run: Run, raises: bool = False) -> int:
        if raises:
            raise ValueError
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with (tmp_path / "log.txt").open("w") as log:
            run = Run(Settings(size=size), "fp32", Output(log, silent=True), tmp_path)
            assert train(run) == threads
            with pytest.raises(ValueError):
                train(run, raises=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
