"""How an answer is compared with a reference: whatever came is a Mistake, and never a traceback."""

from typing import Any

from labs.kit.compare import Mistake, expect_close, name_mistake

import pytest
import torch

WANT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])

WRONG = [
    (None, "nothing"),
    ([1.0], "a list came"),
    (WANT[0], "shape"),
    (WANT.double(), "dtype"),
    (WANT.to_sparse(), "layout torch.sparse_coo"),
    (WANT.to("meta"), "on meta"),
    (WANT.cfloat(), "dtype"),
    (WANT * float("nan"), "NaN"),
    (WANT + 1, "off by 1 .*: the likely one"),
]


@pytest.mark.parametrize(("got", "told"), WRONG)
def test_what_is_wrong_is_told(got: Any, told: str) -> None:
    name_mistake(got, {"never": lambda: WANT * 2})
    with pytest.raises(Mistake, match=told):
        expect_close(got, WANT, ": the likely one")


def test_what_is_right_passes_and_a_known_mistake_is_named() -> None:
    expect_close(WANT + 1e-6, WANT, "")
    with pytest.raises(Mistake, match="twice as large"):
        name_mistake(WANT * 2, {"twice as large": lambda: WANT * 2})
