"""A stack for GPUs on a machine where torch sees none."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from labs.kit.run import missing_gpu
from tests.conftest import SOMEBODY, Clone, as_user
from tests.kit.every_finding import NOTHING

import pytest


@pytest.fixture
def built_for(clone: Clone, labs_home: Path) -> Callable[[str], str]:
    """Return a function that makes a home built for a stack, with the real assets."""

    def make(stack: str) -> str:
        home = clone.path / "home"
        home.mkdir()
        (home / "assets").symlink_to(labs_home / "assets")
        (home / "stack.json").write_text(json.dumps({"stack": stack}))
        return str(home)

    return make


@pytest.mark.parametrize(("stack", "node"), [("rocm", "/dev/kfd"), ("cuda", "/dev/nvidiactl")])
def test_a_gpu_stack_without_a_gpu_is_a_card(
    clone: Clone, built_for: Callable[[str], str], stack: str, node: str
) -> None:
    if Path(node).exists():
        pytest.skip(f"this machine has {node}")
    lab = clone.kit_lab(NOTHING)
    unset = dict.fromkeys(missing_gpu.FILTERS)
    ended = clone.labs(lab, LABS_HOME=built_for(stack), **unset)
    assert ended.code == 3, ended
    assert f"what: This is the {stack} stack, and torch sees no GPU." in ended.err
    assert f"{node} doesn't exist" in ended.err
    assert not (clone.outputs / lab).exists() or not list((clone.outputs / lab).iterdir())


def test_without_a_visible_gpu_a_gpu_stack_runs_on_the_cpu(
    clone: Clone, built_for: Callable[[str], str]
) -> None:
    ended = clone.labs(clone.kit_lab(NOTHING), LABS_HOME=built_for("rocm"), HIP_VISIBLE_DEVICES="")
    assert ended.code == 0, ended


def test_a_node_without_permission_gives_a_card_with_the_missing_group(
    clone: Clone, root: None
) -> None:
    del root  # only root can become another user
    device = clone.path / "kfd"
    device.touch()
    device.chmod(0o660)
    os.chown(device, 0, 4343)
    code = (
        "from pathlib import Path\nfrom labs.kit.run.missing_gpu import explain_absence\n"
        f"explain_absence('rocm', Path('{clone.path}')).show()"
    )
    how = {"user": as_user(SOMEBODY), "PYTHONPATH": str(clone.path), "HOME": str(clone.path)}
    ended = clone.run(sys.executable, "-c", code, **how)
    assert f"uid {SOMEBODY} in groups [] may not open {device}" in ended.err, ended
    assert "add group 4343" in ended.err


def test_with_a_node_that_opens_the_card_has_the_error_of_torch(tmp_path: Path) -> None:
    (tmp_path / "nvidiactl").touch()
    card = missing_gpu.explain_absence("cuda", tmp_path)
    assert card.why and "nvidiactl" not in card.why
