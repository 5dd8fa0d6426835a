"""The choice of the stack, with the reason or the card."""

import json
import re
from dataclasses import replace
from pathlib import Path

from common.cards import WRONG_ENVIRONMENT, WRONG_USAGE, Card
from launcher.environment import stack
from launcher.gpu import show as list_gpus
from launcher.gpu.detect import Machine
from launcher.gpu.model import Gpu

import pytest
from rich.console import Console

GIB = 2**30
KFD = "/sys/class/kfd has no GPU node"
PROC = "/proc/driver/nvidia is missing"
EMPTY = Machine((), absences=(f"no AMD GPU ({KFD})", f"no NVIDIA GPU ({PROC})"))
MI300X = Gpu("amd", 0, "AMD Instinct MI300X", "gfx942", 192 * GIB, "/dev/dri/renderD128")
STRIX = Gpu("amd", 0, "AMD Radeon", "gfx1151", 96 * GIB, "/dev/dri/renderD128", integrated=True)
W7900 = Gpu("amd", 1, "AMD Radeon PRO W7900", "gfx1100", 48 * GIB, "/dev/dri/renderD129")
H100 = Gpu("nvidia", 0, "NVIDIA H100", "9.0", 80 * GIB, "/dev/nvidia0")
CLOSED = replace(MI300X, unusable="uid 4242 may not open /dev/kfd", fix="sudo usermod -aG render")
OLD = replace(H100, unusable="CUDA 13 needs driver 580, and 550 is loaded", fix="install 580")


def machine(*gpus: Gpu) -> Machine:
    absent = [
        one for one in EMPTY.absences if not any(f"no {g.vendor.upper()} " in one for g in gpus)
    ]
    return Machine(gpus, nvidia="580.95.05", absences=tuple(absent))


def refused(asked: str, found: Machine) -> Card:
    with pytest.raises(Card) as caught:
        stack.choose_stack(asked, found)
    assert caught.value.code == WRONG_ENVIRONMENT
    return caught.value


def test_an_unknown_stack_is_wrong_usage() -> None:
    with pytest.raises(Card) as caught:
        stack.choose_stack("metal", EMPTY)
    assert caught.value.code == WRONG_USAGE


def test_an_amd_gpu_that_can_be_used_is_rocm() -> None:
    choice = stack.choose_stack("auto", machine(MI300X))
    assert (choice.stack, choice.gpus) == ("rocm", (MI300X,))
    assert choice.reason == "/sys/class/kfd lists a gfx942 and /dev/kfd is writable"


def test_an_nvidia_gpu_that_can_be_used_is_cuda() -> None:
    choice = stack.choose_stack("auto", machine(H100))
    assert (choice.stack, choice.gpus) == ("cuda", (H100,))
    assert choice.reason == "NVIDIA's driver 580.95.05 lists NVIDIA H100"


def test_several_gpus_are_counted_and_all_used() -> None:
    eight = tuple(replace(MI300X, index=index) for index in range(8))
    choice = stack.choose_stack("auto", machine(*eight))
    assert choice.gpus == eight
    assert "lists 8 gfx942" in choice.reason


def test_an_integrated_gpu_alone_is_rocm_and_called_integrated() -> None:
    choice = stack.choose_stack("auto", machine(STRIX))
    assert choice.gpus == (STRIX,)
    assert "lists an integrated gfx1151" in choice.reason


def test_a_gpu_with_another_gfx_target_is_left_out() -> None:
    for asked in ("auto", "rocm"):
        choice = stack.choose_stack(asked, machine(STRIX, W7900))
        assert choice.gpus == (W7900,)
        assert "the gfx1151 would need a separate image" in choice.reason


def test_the_vendor_with_more_memory_is_chosen_and_the_reason_says_so() -> None:
    choice = stack.choose_stack("auto", machine(MI300X, H100))
    assert choice.stack == "rocm"
    assert "192 GiB" in choice.reason and "NVIDIA H100: 80 GiB" in choice.reason
    assert "cuda isn't used" in choice.reason
    assert stack.choose_stack("auto", machine(W7900, H100)).stack == "cuda"


def test_a_discrete_gpu_is_preferred_over_an_integrated_one_with_more_memory() -> None:
    choice = stack.choose_stack("auto", machine(STRIX, H100))
    assert choice.stack == "cuda"
    assert "dedicated memory, unlike the AMD Radeon" in choice.reason


def test_no_gpu_means_cpu_and_the_reason_says_where_detection_looked() -> None:
    choice = stack.choose_stack("auto", EMPTY)
    assert (choice.stack, choice.gpus) == ("cpu", ())
    assert choice.reason == f"there is no AMD GPU ({KFD}) and no NVIDIA GPU ({PROC})"


@pytest.mark.parametrize("gpu", [CLOSED, OLD])
def test_an_unusable_gpu_is_a_card_and_not_a_cpu_run(gpu: Gpu) -> None:
    card = refused("auto", machine(gpu))
    assert gpu.unusable in card.why
    assert gpu.fix in card.fix
    assert "--stack cpu" in card.fix


def test_the_same_problem_of_many_gpus_is_reported_once() -> None:
    gpus = []
    for index in range(64):
        node = f"/dev/dri/renderD{128 + index}"
        why = f"uid 4242 may not open /dev/kfd and {node}: not in group 992"
        gpus.append(replace(CLOSED, index=index, node=node, unusable=why))
    card = refused("auto", machine(*gpus))
    assert card.what == "This machine has 64 GPUs, and none of them can be used."
    assert card.why.count("may not open") == 1
    assert "and 63 more like it" in card.why
    assert card.fix.count("usermod") == 1


def test_an_unusable_gpu_does_not_affect_a_usable_one() -> None:
    choice = stack.choose_stack("auto", machine(MI300X, OLD))
    assert choice.stack == "rocm"
    assert OLD.unusable in choice.reason


def test_the_cpu_can_always_be_requested() -> None:
    for found in (EMPTY, machine(CLOSED), machine(MI300X)):
        choice = stack.choose_stack("cpu", found)
        assert (choice.stack, choice.reason, choice.gpus) == ("cpu", "it was asked for", ())


def test_a_requested_stack_is_used() -> None:
    both = machine(MI300X, H100)
    assert stack.choose_stack("cuda", both).gpus == (H100,)
    choice = stack.choose_stack("rocm", both)
    assert choice.gpus == (MI300X,)
    assert choice.reason.startswith("it was asked for, and /sys/class/kfd lists a gfx942")


@pytest.mark.parametrize(
    ("asked", "what", "why"),
    [
        ("rocm", "This machine has no AMD GPU.", KFD),
        ("cuda", "This machine has no NVIDIA GPU.", PROC),
    ],
)
def test_a_stack_without_a_gpu_is_a_card_that_says_where_detection_looked(
    asked: str, what: str, why: str
) -> None:
    card = refused(asked, EMPTY)
    assert card.what == what
    assert why in card.why
    assert "--stack cpu" in card.fix


def test_a_requested_stack_with_an_unusable_gpu_is_a_card_even_if_another_works() -> None:
    card = refused("cuda", machine(MI300X, OLD))
    assert card.what == "This machine has an NVIDIA GPU that can't be used."
    assert OLD.unusable in card.why
    assert "install 580" in card.fix
    assert "AMD" not in card.what + card.why


def test_a_gpu_without_a_fix_leaves_the_cpu() -> None:
    card = refused("auto", machine(replace(CLOSED, fix="")))
    assert card.fix == "to run without a GPU: --stack cpu"


def test_memory_is_formatted_in_gib() -> None:
    assert [stack.format_memory(n) for n in (0, GIB // 2, 16 * GIB)] == [
        "unknown",
        "0.5 GiB",
        "16 GiB",
    ]
    assert stack.format_memory(206_141_652_992) == "192 GiB"  # reported by an MI300X


# invoke gpus


def printed(width: int, terminal: bool, capsys: pytest.CaptureFixture[str]) -> str:
    console = Console(width=width, force_terminal=terminal, color_system=None, soft_wrap=True)
    list_gpus.print_gpus(console, (STRIX, W7900, OLD))
    return capsys.readouterr().out


def test_a_pipe_gets_a_line_for_each_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(40, False, capsys).splitlines()
    assert [line.split("\t")[0] for line in lines] == ["#", "amd 0", "amd 1", "nvidia 0"]
    _, first, second, last = (line.split("\t") for line in lines)
    assert first[1] == "AMD Radeon, integrated"
    assert second[2:] == ["gfx1100", "48 GiB", "/dev/dri/renderD129", "yes"]
    assert last[-1] == f"no: {OLD.unusable}"


def test_a_terminal_gets_a_table_with_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    table = printed(160, True, capsys)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", table).splitlines()
    assert plain[0].split() == list(list_gpus.COLUMNS)
    assert len(plain) == 4


def test_json_contains_what_the_lines_contain(capsys: pytest.CaptureFixture[str]) -> None:
    list_gpus.show(as_json=True)
    said = json.loads(capsys.readouterr().out)
    list_gpus.show(as_json=False)
    lines = capsys.readouterr().out
    assert {"gpus", "amdgpu", "kfd", "nvidia", "notes", "auto"} <= set(said)
    auto = said["auto"]
    assert (auto["reason"] if auto["stack"] else auto["what"]) in lines
    assert all(Path(gpu["node"]).name in lines for gpu in said["gpus"])
