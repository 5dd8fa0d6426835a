"""The selection of GPUs for a run, and how they are attached to its container."""

from collections.abc import Sequence
from dataclasses import replace

from common.cards import Card
from launcher.engine.container_spec import ContainerSpec, GpuRequest
from launcher.gpu import select as select_gpus
from launcher.gpu.model import AMD, NVIDIA, Gpu

import pytest


def amd(index: int) -> Gpu:
    node = f"/dev/dri/renderD{128 + 8 * index}"
    opened = ("/dev/kfd", node)
    gpu = Gpu(AMD, index, "Instinct", "gfx942", node=node, devices=opened, gids=(992, 44))
    return replace(gpu, uuid=f"GPU-00aa{index}")


def nvidia(index: int) -> Gpu:
    return Gpu(NVIDIA, index, "H100", "9.0", node=f"/dev/nvidia{index}", uuid=f"GPU-b{index}")


EIGHT = [amd(index) for index in range(8)]
BARE = ContainerSpec("image", devices=("/dev/kfd", "/dev/dri"), groups=("109", "44"))


def numbers(
    asked: str, stack: str = "rocm", gpus: list[Gpu] = EIGHT, **variables: str
) -> list[int]:
    return [gpu.index for gpu in select_gpus.select(asked, stack, gpus, variables).gpus]


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
def test_the_requested_gpus_are_selected(asked: str, want: list[int]) -> None:
    assert numbers(asked) == want


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "9,", "0,x"])
def test_an_invalid_request_is_wrong_usage(asked: str) -> None:
    with pytest.raises(Card) as refused:
        numbers(asked)
    assert refused.value.code == 2


def test_a_request_for_too_many_gpus_is_a_card() -> None:
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
def test_visibility_variables_apply_once(variables: dict[str, str], want: list[int]) -> None:
    assert numbers("all", **variables) == want


# What Slurm 24.11 sets for AMD GPUs: three variables with one value.
def slurm(value: str, job: str, **more: str) -> dict[str, str]:
    names = ("ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
    return {**dict.fromkeys(names, value), "SLURM_JOB_GPUS": job, **more}


@pytest.mark.parametrize(
    ("variables", "want"),
    [
        (slurm("5", "5"), [5]),
        (slurm("0,1", "2,3"), [2, 3]),
        (slurm("0,1,2", "2-4"), [2, 3, 4]),
        (slurm("4,5", "4,5", SLURM_STEP_GPUS="5"), [5]),
        (slurm("0,1", "2,3", HIP_VISIBLE_DEVICES="1"), [3]),
        (slurm("4,5", "4,5", HIP_VISIBLE_DEVICES="5"), [5]),
        ({"ROCR_VISIBLE_DEVICES": "6,7", "CUDA_VISIBLE_DEVICES": "6,7"}, [6, 7]),
    ],
)
def test_a_job_gets_its_own_gpus(variables: dict[str, str], want: list[int]) -> None:
    assert numbers("all", **variables) == want


def test_a_job_whose_cgroup_denies_all_other_gpus_gets_what_it_can_open() -> None:
    mine = EIGHT[2:4]
    assert numbers("all", gpus=mine, **slurm("0,1", "2,3")) == [2, 3]
    renumbered = [amd(0), amd(1)]  # by a kernel that hides the other GPUs
    assert numbers("all", gpus=renumbered, **slurm("0,1", "2,3")) == [0, 1]


def test_a_gpu_of_the_job_that_is_not_usable_is_a_card() -> None:
    with pytest.raises(Card, match="This job's GPU 7 can't be used here"):
        numbers("all", gpus=EIGHT[:4], **slurm("0,1", "3,7"))


def test_a_job_whose_gpus_nothing_names_is_a_card() -> None:
    with pytest.raises(Card, match="It isn't known which GPUs job 7 of Slurm has"):
        numbers("1", SLURM_JOB_ID="7")
    assert numbers("all", SLURM_JOB_ID="7", ROCR_VISIBLE_DEVICES="2") == [2]


def test_an_nvidia_job_gets_its_own_gpus() -> None:
    gpus = [nvidia(index) for index in range(4)]
    job = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_GPUS": "2,3"}
    assert numbers("all", "cuda", gpus, **job) == [2, 3]


def test_the_site_restricts_a_seat() -> None:
    assert numbers("all", LABS_RENDER_NODES="/dev/dri/renderD144") == [2]
    assert numbers("all", LABS_RENDER_NODES="/dev/dri/renderD144, /dev/dri/renderD136") == [1, 2]
    assert numbers("all", LABS_RENDER_NODES="/dev/dri") == list(range(8))
    assert numbers("all", "cuda", [nvidia(0), nvidia(1)], LABS_GPUS="GPU-b1") == [1]
    with pytest.raises(Card, match="There is no GPU '0'"):
        numbers("0,", LABS_RENDER_NODES="/dev/dri/renderD144")
    with pytest.raises(Card, match="names no GPU that can be used here"):
        numbers("1", LABS_RENDER_NODES="/dev/dri/renderD999")


def test_whoever_takes_the_gpus_chooses_among_those_that_the_request_allows() -> None:
    asked: list[tuple[list[int], int]] = []

    def last_ones(gpus: Sequence[Gpu], count: int) -> tuple[tuple[Gpu, ...], str]:
        asked.append(([gpu.index for gpu in gpus], count))
        return tuple(gpus[-count:]), "the last"

    chosen = select_gpus.select("2", "rocm", EIGHT[:4], {"HIP_VISIBLE_DEVICES": "1,2,3"}, last_ones)
    assert [gpu.index for gpu in chosen.gpus] == [2, 3]
    assert chosen.note == "HIP_VISIBLE_DEVICES=1,2,3 leaves GPU 1, 2, 3; the last"
    for request in ("3,0", "all", "none"):
        select_gpus.select(request, "rocm", EIGHT[:4], {}, last_ones)
    assert asked == [([1, 2, 3], 2), ([3, 0], 2), ([0, 1, 2, 3], 4)]


def test_the_note_names_the_visibility_variable() -> None:
    chosen = select_gpus.select("1", "rocm", EIGHT, {"HIP_VISIBLE_DEVICES": "4,5"})
    assert chosen.note == "HIP_VISIBLE_DEVICES=4,5 leaves GPU 4, 5"


def test_a_gpu_that_is_not_visible_is_refused() -> None:
    with pytest.raises(Card, match="There is no GPU '0'"):
        numbers("0,", HIP_VISIBLE_DEVICES="4,5")


def test_a_variable_that_names_no_gpu_is_a_card() -> None:
    with pytest.raises(Card, match="HIP_VISIBLE_DEVICES names a GPU that isn't here: 8"):
        numbers("1", HIP_VISIBLE_DEVICES="8")


def test_amd_gpus_are_attached_as_nodes_with_numeric_groups() -> None:
    spec = select_gpus.attach(BARE, "rocm", [EIGHT[2], EIGHT[0]], "auto")
    assert spec.devices == ("/dev/kfd", "/dev/dri/renderD144", "/dev/dri/renderD128")
    assert spec.groups == ("44", "992")
    assert spec.requests == ()
    assert not spec.environment, "a filter beside isolation would filter twice"


def test_amd_gpus_are_attached_by_cdi_with_their_groups() -> None:
    spec = select_gpus.attach(BARE, "rocm", [EIGHT[0], EIGHT[2]], "cdi")
    assert spec.requests == (GpuRequest("cdi", ("amd.com/gpu=0", "amd.com/gpu=2")),)
    assert (spec.devices, spec.groups) == ((), ("44", "992"))
    assert "--device=amd.com/gpu=2" in spec.docker_run_command()
    assert spec.sdk_arguments()["device_requests"][0]["Driver"] == "cdi"


def test_the_amd_runtime_gets_the_gpu_numbers() -> None:
    spec = select_gpus.attach(BARE, "rocm", [EIGHT[1], EIGHT[2]], "runtime")
    assert spec.runtime == "amd"
    assert spec.environment == {"AMD_VISIBLE_DEVICES": "1,2"}
    assert spec.devices == ()


def test_nvidia_gpus_are_requested_by_uuid() -> None:
    gpus = [nvidia(0), nvidia(3)]
    spec = select_gpus.attach(ContainerSpec("image"), "cuda", gpus, "auto")
    assert spec.requests == (GpuRequest("nvidia", ("GPU-b0", "GPU-b3")),)
    line = spec.docker_run_command()
    assert line[line.index("--gpus") + 1] == 'driver=nvidia,"device=GPU-b0,GPU-b3"'
    request = spec.sdk_arguments()["device_requests"][0]
    assert request["Capabilities"] == [["gpu"]]
    assert request["DeviceIDs"] == ["GPU-b0", "GPU-b3"]


def test_an_unknown_access_is_refused() -> None:
    with pytest.raises(Card, match="LABS_DEVICES"):
        select_gpus.attach(BARE, "rocm", EIGHT[:1], "magic")


def test_a_process_outside_a_container_gets_one_filter() -> None:
    shown = select_gpus.visibility_variables("rocm", [EIGHT[2], EIGHT[5]])
    assert shown == {"ROCR_VISIBLE_DEVICES": "2,5", "HIP_VISIBLE_DEVICES": "0,1"}
    assert select_gpus.visibility_variables("cuda", [nvidia(3)])["CUDA_VISIBLE_DEVICES"] == "3"
    assert select_gpus.visibility_variables("cpu", []) == {}
