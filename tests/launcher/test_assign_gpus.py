"""Which GPUs a run gets, and how the container is told of them."""

from dataclasses import replace

from launcher import devices
from launcher.cards import Card
from launcher.compose import Container, Request
from launcher.hardware import AMD, NVIDIA, Gpu

import pytest


def amd(index: int) -> Gpu:
    node = f"/dev/dri/renderD{128 + 8 * index}"
    opened = ("/dev/kfd", node)
    gpu = Gpu(AMD, index, "Instinct", "gfx942", node=node, devices=opened, gids=(992, 44))
    return replace(gpu, uuid=f"GPU-00aa{index}")


def nvidia(index: int) -> Gpu:
    return Gpu(NVIDIA, index, "H100", "9.0", node=f"/dev/nvidia{index}", uuid=f"GPU-b{index}")


EIGHT = [amd(index) for index in range(8)]
BARE = Container("image", devices=("/dev/kfd", "/dev/dri"), groups=("109", "44"))


def numbers(
    asked: str, stack: str = "rocm", gpus: list[Gpu] = EIGHT, **variables: str
) -> list[int]:
    return [gpu.index for gpu in devices.select(asked, stack, gpus, variables).gpus]


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ("", [0]),
        ("1", [0]),
        ("3", [0, 1, 2]),
        ("0,2", [0, 2]),
        ("5,", [5]),
        ("7, 1", [7, 1]),
        ("none", []),
        ("all", list(range(8))),
    ],
)
def test_what_is_asked_for_is_chosen(asked: str, want: list[int]) -> None:
    assert numbers(asked) == want


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "9,", "0,x"])
def test_what_can_not_be_understood_is_wrong_usage(asked: str) -> None:
    with pytest.raises(Card) as refused:
        numbers(asked)
    assert refused.value.code == 2


def test_more_than_there_are_is_a_card() -> None:
    with pytest.raises(Card, match="There are not 9 GPUs"):
        numbers("9")


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        ({"HIP_VISIBLE_DEVICES": "4,5"}, [4, 5]),
        ({"CUDA_VISIBLE_DEVICES": "6"}, [6]),
        ({"ROCR_VISIBLE_DEVICES": "4,5,6", "HIP_VISIBLE_DEVICES": "1,2"}, [5, 6]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-00aa3"}, [3]),
        ({"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "2"}, [2]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_what_is_already_visible_is_honoured_once(
    variables: dict[str, str], want: list[int]
) -> None:
    assert numbers("all", **variables) == want


def test_what_was_honoured_is_said() -> None:
    chosen = devices.select("1", "rocm", EIGHT, {"HIP_VISIBLE_DEVICES": "4,5"})
    assert chosen.note == "HIP_VISIBLE_DEVICES=4,5 leaves GPU 4, 5"


def test_a_gpu_outside_the_assignment_is_refused() -> None:
    with pytest.raises(Card, match="There is no GPU '0'"):
        numbers("0,", HIP_VISIBLE_DEVICES="4,5")


def test_a_variable_that_names_no_gpu_is_a_card() -> None:
    with pytest.raises(Card, match="HIP_VISIBLE_DEVICES names a GPU that isn't here: 8"):
        numbers("1", HIP_VISIBLE_DEVICES="8")


def test_amd_s_are_given_as_their_own_nodes_and_numeric_groups() -> None:
    given = devices.given(BARE, "rocm", [EIGHT[2], EIGHT[0]], "auto")
    assert given.devices == ("/dev/kfd", "/dev/dri/renderD144", "/dev/dri/renderD128")
    assert given.groups == ("44", "992")
    assert given.requests == ()
    assert not given.environment, "a filter beside isolation would filter twice"


def test_amd_s_are_given_by_cdi_with_their_groups() -> None:
    given = devices.given(BARE, "rocm", [EIGHT[0], EIGHT[2]], "cdi")
    assert given.requests == (Request("cdi", ("amd.com/gpu=0", "amd.com/gpu=2")),)
    assert (given.devices, given.groups) == ((), ("44", "992"))
    assert "--device=amd.com/gpu=2" in given.as_docker_run()
    assert given.for_the_sdk()["device_requests"][0]["Driver"] == "cdi"


def test_amd_s_runtime_is_told_which() -> None:
    given = devices.given(BARE, "rocm", [EIGHT[1], EIGHT[2]], "runtime")
    assert given.runtime == "amd"
    assert given.environment == {"AMD_VISIBLE_DEVICES": "1,2"}
    assert given.devices == ()


def test_nvidia_s_are_requested_by_uuid() -> None:
    gpus = [nvidia(0), nvidia(3)]
    given = devices.given(Container("image"), "cuda", gpus, "auto")
    assert given.requests == (Request("nvidia", ("GPU-b0", "GPU-b3")),)
    line = given.as_docker_run()
    assert line[line.index("--gpus") + 1] == 'driver=nvidia,"device=GPU-b0,GPU-b3"'
    request = given.for_the_sdk()["device_requests"][0]
    assert request["Capabilities"] == [["gpu"]]
    assert request["DeviceIDs"] == ["GPU-b0", "GPU-b3"]


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(Card, match="LABS_DEVICES"):
        devices.given(BARE, "rocm", EIGHT[:1], "magic")


def test_a_process_without_a_container_sees_its_gpus_through_one_filter() -> None:
    shown = devices.visible("rocm", [EIGHT[2], EIGHT[5]])
    assert shown == {"ROCR_VISIBLE_DEVICES": "2,5", "HIP_VISIBLE_DEVICES": "0,1"}
    assert devices.visible("cuda", [nvidia(3)])["CUDA_VISIBLE_DEVICES"] == "3"
    assert devices.visible("cpu", []) == {}
