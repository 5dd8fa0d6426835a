"""GPU detection in trees of files with the shape of /sys, /proc and /dev."""

import grp
import os
import pwd
from pathlib import Path

from launcher.gpu import amd as amd_gpus
from launcher.gpu import nvidia as nvidia_gpus
from launcher.gpu.access import User
from launcher.gpu.detect import Machine, detect
from launcher.gpu.model import Gpu
from launcher.run.file_owner import Owner
from tests.launcher.device_trees import (
    GIB,
    OPEN_MODULE,
    OWN_MODULE,
    add_amd_gpu,
    add_nvidia_gpu,
    add_pci_device,
    cpu_node,
    device,
    kfd_node,
    nvidia_driver,
    write,
)

import pytest

STRANGER = User(4242, frozenset({4242}))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return the root of a machine with one CPU, amdgpu and /dev/kfd, and no GPU yet."""
    cpu_node(tmp_path)
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    device(tmp_path, "/dev/kfd")
    return tmp_path


@pytest.fixture
def nvidia_host(tmp_path: Path) -> Path:
    """Return the root of a machine with NVIDIA's driver and no GPU yet."""
    nvidia_driver(tmp_path, "580.95.05")
    return tmp_path


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder at the front of PATH, for a test's nvidia-smi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def fake_nvidia_smi(folder: Path, script: str) -> None:
    path = write(folder / "nvidia-smi", f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def only(machine: Machine) -> Gpu:
    (gpu,) = machine.gpus
    return gpu


# AMD


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (80003, "gfx803"),
        (90008, "gfx908"),
        (90010, "gfx90a"),
        (90012, "gfx90c"),
        (90402, "gfx942"),
        (90500, "gfx950"),
        (100306, "gfx1036"),
        (110000, "gfx1100"),
        (110501, "gfx1151"),
        (120001, "gfx1201"),
        (0, ""),
    ],
)
def test_a_target_is_spelled_with_its_step_in_hex(version: int, target: str) -> None:
    assert amd_gpus.target_name(version) == target


def test_an_mi300x_has_all_its_properties(host: Path) -> None:
    add_amd_gpu(host, 1, 90402, 128, 192 * GIB, unique=0xC34EC50444DD0A6C)
    machine = detect(host, STRANGER)
    assert only(machine) == Gpu(
        vendor="amd",
        index=0,
        name="AMD Instinct MI300 series",
        target="gfx942",
        vram_bytes=192 * GIB,
        node="/dev/dri/renderD128",
        uuid="GPU-c34ec50444dd0a6c",
        devices=("/dev/kfd", "/dev/dri/renderD128"),
    )
    assert (machine.amdgpu, machine.kfd, machine.nvidia) == (True, True, "")


def test_an_mi250_is_two_gpus_with_a_node_each(host: Path) -> None:
    add_amd_gpu(host, 1, 90010, 128, 64 * GIB)
    add_amd_gpu(host, 2, 90010, 129, 64 * GIB)
    found = [(gpu.index, gpu.target, gpu.node) for gpu in detect(host, STRANGER).gpus]
    assert found == [(0, "gfx90a", "/dev/dri/renderD128"), (1, "gfx90a", "/dev/dri/renderD129")]


def test_a_strix_halo_alone_is_usable_and_integrated(host: Path) -> None:
    # Kernel 6.x gives an integrated GPU a separate node, without CPU cores.
    add_amd_gpu(host, 1, 110501, 128, 96 * GIB)
    gpu = only(detect(host, STRANGER))
    assert (gpu.target, gpu.integrated, gpu.unusable) == ("gfx1151", True, "")


def test_a_gpu_on_a_node_with_cpu_cores_is_integrated(tmp_path: Path) -> None:
    device(tmp_path, "/dev/kfd")
    add_amd_gpu(tmp_path, 0, 110000, 128, cores=16)
    assert only(detect(tmp_path, STRANGER)).integrated


def test_nodes_are_in_the_order_of_their_numbers(host: Path) -> None:
    minors = {9: 128, 10: 136, 2: 144}
    for number, minor in minors.items():
        add_amd_gpu(host, number, 90402, minor)
    nodes = [gpu.node[-3:] for gpu in detect(host, STRANGER).gpus]
    assert nodes == ["144", "128", "136"]


def test_the_render_node_is_the_one_that_kfd_names(host: Path) -> None:
    add_amd_gpu(host, 1, 90402, 153)
    assert only(detect(host, STRANGER)).node == "/dev/dri/renderD153"


def test_visible_and_invisible_vram_count_and_system_memory_does_not(host: Path) -> None:
    folder = add_amd_gpu(host, 1, 90402, 128, 16 * GIB)
    for number, (heap, size) in enumerate([(2, 48 * GIB), (0, 500 * GIB), (4, GIB)], start=1):
        bank = folder / f"mem_banks/{number}/properties"
        write(bank, f"heap_type {heap}\nsize_in_bytes {size}\n")
    assert only(detect(host, STRANGER)).vram_bytes == 64 * GIB


def test_a_gpu_with_a_product_name_is_called_by_it(host: Path) -> None:
    add_amd_gpu(host, 1, 90402, 128)
    name = "AMD Instinct MI300X OAM\n"
    write(host / "sys/class/drm/renderD128/device/product_name", name)
    assert only(detect(host, STRANGER)).name == "AMD Instinct MI300X OAM"


def test_a_discrete_gpu_comes_before_the_integrated_one(host: Path) -> None:
    add_amd_gpu(host, 1, 110501, 128, 96 * GIB)
    add_amd_gpu(host, 2, 110000, 129, 24 * GIB)
    machine = detect(host, STRANGER)
    assert [gpu.target for gpu in machine.gpus] == ["gfx1151", "gfx1100"]
    assert [gpu.target for gpu in machine.usable("amd")] == ["gfx1100", "gfx1151"]


def test_eight_mi300x_in_64_partitions_are_64_gpus(host: Path) -> None:
    cpu_node(host, 1)
    for number in range(64):
        add_amd_gpu(host, 2 + number, 90402, 128 + number, 24 * GIB)
    gpus = detect(host, STRANGER).gpus
    assert [gpu.index for gpu in gpus] == list(range(64))
    assert [gpu.node for gpu in gpus] == [f"/dev/dri/renderD{128 + n}" for n in range(64)]
    assert not any(gpu.unusable for gpu in gpus)


def test_a_withheld_node_is_listed_last_with_the_reason(host: Path) -> None:
    withheld = add_amd_gpu(host, 1, 90402, 128)
    add_amd_gpu(host, 2, 90402, 136)
    (withheld / "properties").unlink()
    (withheld / "properties").symlink_to("/proc/self/mem")  # can be opened but not read
    shown, hidden = detect(host, STRANGER).gpus
    assert (shown.index, shown.node, shown.unusable) == (0, "/dev/dri/renderD136", "")
    assert hidden.index == 1
    assert "node 1 can't be read" in hidden.unusable
    assert "--device /dev/kfd" in hidden.fix


def test_kfd_without_a_gpu_is_no_gpu(host: Path) -> None:
    machine = detect(host, STRANGER)
    assert machine.gpus == ()
    assert machine.kfd
    assert "no AMD GPU (/sys/class/kfd has no GPU node)" in machine.absences


def test_a_machine_without_either_driver_has_no_gpu(tmp_path: Path) -> None:
    machine = detect(tmp_path, STRANGER)
    assert machine == Machine(
        gpus=(),
        absences=(
            "no AMD GPU (/sys/class/kfd is missing)",
            "no NVIDIA GPU (/proc/driver/nvidia is missing)",
        ),
    )


@pytest.mark.parametrize("missing", ["/dev/kfd", "/dev/dri/renderD128"])
def test_a_missing_node_makes_a_gpu_unusable(host: Path, missing: str) -> None:
    add_amd_gpu(host, 1, 90402, 128)
    (host / missing.lstrip("/")).unlink()
    gpu = only(detect(host, STRANGER))
    assert gpu.unusable == f"{missing} is missing, although /sys/class/kfd lists the GPU"
    assert "modprobe amdgpu" in gpu.fix


@pytest.mark.parametrize(("version", "target"), [(120304, "gfx1234"), (80003, "gfx803")])
def test_a_target_that_torch_is_not_built_for_is_unusable(
    host: Path, version: int, target: str
) -> None:
    add_amd_gpu(host, 1, version, 128)
    gpu = only(detect(host, STRANGER))
    assert gpu.target == target
    assert gpu.unusable == f"torch for ROCm is not built for {target}"


def test_every_target_that_torch_is_built_for_is_usable(host: Path) -> None:
    versions = [90008, 90010, 90402, 90500, 110000, 110001, 110002, 110003]
    versions += [110500, 110501, 110502, 110503, 120000, 120001]
    for number, version in enumerate(versions, start=1):
        add_amd_gpu(host, number, version, 127 + number)
    gpus = detect(host, STRANGER).gpus
    assert {gpu.target for gpu in gpus} == set(amd_gpus.TARGETS)
    assert [gpu.target for gpu in gpus if gpu.unusable] == []


def test_a_kernel_that_reports_no_target_is_too_old(host: Path) -> None:
    device(host, "/dev/dri/renderD128")
    kfd_node(host, 1, None, 128, 16 * GIB)
    gpu = only(detect(host, STRANGER))
    assert "too old" in gpu.unusable
    assert gpu.fix == "update the kernel"


# GPUs on the PCI bus only


@pytest.mark.parametrize(
    ("vendor", "kind", "driver", "says"),
    [
        ("0x1002", "0x120000", "", "its driver amdgpu isn't loaded: no driver is bound to it"),
        ("0x1002", "0x030000", "radeon", "its driver amdgpu isn't loaded: radeon is bound to it"),
        ("0x1002", "0x038000", "amdgpu", "amdgpu drives it, but KFD doesn't list it"),
        ("0x10de", "0x030000", "nouveau", "NVIDIA's driver isn't loaded: nouveau is bound to it"),
        ("0x10de", "0x030200", "nvidia", "/proc/driver/nvidia/gpus doesn't list it"),
    ],
)
def test_a_gpu_that_no_driver_lists_is_found_and_unusable(
    tmp_path: Path, vendor: str, kind: str, driver: str, says: str
) -> None:
    add_pci_device(tmp_path, "0000:c1:00.0", vendor, kind, driver)
    gpu = only(detect(tmp_path, STRANGER))
    assert says in gpu.unusable
    assert gpu.fix
    assert "0000:c1:00.0" in gpu.name


@pytest.mark.parametrize(
    ("vendor", "kind", "driver"),
    [
        ("0x10de", "0x040300", "snd_hda_intel"),  # the audio device of an HDMI port
        ("0x1002", "0x030000", "vfio-pci"),  # reserved for a virtual machine
        ("0x1a03", "0x030000", "ast"),  # a server's display adapter
    ],
)
def test_devices_that_are_not_gpus_of_this_machine_are_skipped(
    tmp_path: Path, vendor: str, kind: str, driver: str
) -> None:
    add_pci_device(tmp_path, "0000:c1:00.1", vendor, kind, driver)
    assert detect(tmp_path, STRANGER).gpus == ()


def test_a_gpu_that_its_driver_lists_is_not_listed_twice(host: Path) -> None:
    add_amd_gpu(host, 1, 90402, 128)
    add_pci_device(host, "0000:c1:00.0", "0x1002", "0x120000", "amdgpu")
    assert len(detect(host, STRANGER).gpus) == 1


# Permissions


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mknod and chown need root")


@pytest.fixture
def guarded(host: Path) -> Path:
    """Return a machine with a gfx942 whose nodes are open to group 992 only."""
    (host / "dev/kfd").unlink()
    device(host, "/dev/kfd", 0o660, 992)
    device(host, "/dev/dri/renderD128", 0o660, 992)
    kfd_node(host, 1, 90402, 128)
    return host


@needs_root
def test_a_user_in_the_devices_group_may_use_it(guarded: Path) -> None:
    gpu = only(detect(guarded, User(4242, frozenset({4242, 992}))))
    assert (gpu.unusable, gpu.gids) == ("", (992,))


@needs_root
def test_a_user_in_another_group_learns_which_group_is_missing(guarded: Path) -> None:
    gpu = only(detect(guarded, User(4242, frozenset({4242, 44, 993}))))
    assert "uid 4242 may not open /dev/kfd and /dev/dri/renderD128" in gpu.unusable
    assert "not in group" in gpu.unusable and "992" in gpu.unusable
    assert "--group-add 992" in gpu.fix


@needs_root
def test_an_open_node_is_not_named_among_the_closed_ones(guarded: Path) -> None:
    (guarded / "dev/kfd").chmod(0o666)
    gpu = only(detect(guarded, STRANGER))
    assert "/dev/dri/renderD128" in gpu.unusable
    assert "/dev/kfd" not in gpu.unusable


@needs_root
def test_a_group_is_reported_with_name_and_number(guarded: Path) -> None:
    group = next(one for one in grp.getgrall() if one.gr_gid)
    os.chown(guarded / "dev/kfd", 0, group.gr_gid)
    gpu = only(detect(guarded, User(4242, frozenset({992}))))
    assert f"not in group {group.gr_name} (gid {group.gr_gid})" in gpu.unusable


@needs_root
def test_a_user_with_a_login_name_gets_the_usermod_command(guarded: Path) -> None:
    someone = pwd.getpwnam("daemon")
    user = User.on_host(Owner(someone.pw_uid, someone.pw_gid))
    named = next(one for one in grp.getgrall() if one.gr_gid and one.gr_gid not in user.groups)
    for node in ("dev/kfd", "dev/dri/renderD128"):
        os.chown(guarded / node, 0, named.gr_gid)
    gpu = only(detect(guarded, user))
    assert gpu.unusable.startswith(f"daemon (uid {someone.pw_uid}) may not open /dev/kfd")
    assert gpu.fix == f"sudo usermod -aG {named.gr_name} daemon, and log in again"


@needs_root
def test_a_group_without_a_name_gets_one_first(guarded: Path) -> None:
    for node in ("dev/kfd", "dev/dri/renderD128"):
        os.chown(guarded / node, 0, 54321)
    someone = pwd.getpwnam("daemon")
    gpu = only(detect(guarded, User.on_host(Owner(someone.pw_uid, someone.pw_gid))))
    assert gpu.fix.startswith("sudo groupadd --gid 54321 gpu54321 && sudo usermod -aG gpu54321")


@needs_root
def test_a_container_joins_the_group_of_the_devices(guarded: Path) -> None:
    gpu = only(detect(guarded, User.in_container(Owner(4242, 4242))))
    assert gpu.unusable == ""


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_node_closed_to_its_group_is_closed_to_a_container(guarded: Path, mode: int) -> None:
    (guarded / "dev/kfd").chmod(mode)
    gpu = only(detect(guarded, User.in_container(Owner(4242, 4242))))
    assert gpu.unusable == "uid 4242 may not open /dev/kfd: its group may not either"
    assert gpu.fix == "sudo chmod 660 /dev/kfd"


@needs_root
def test_root_in_a_container_can_not_override_the_mode(guarded: Path) -> None:
    os.chown(guarded / "dev/kfd", 4242, 992)
    gpu = only(detect(guarded, User(0, frozenset({0}))))
    assert "may not open /dev/kfd" in gpu.unusable


@needs_root
def test_root_of_the_machine_may_open_closed_nodes(guarded: Path) -> None:
    assert only(detect(guarded)).unusable == ""


@needs_root
def test_a_node_open_to_all_adds_no_group(guarded: Path) -> None:
    (guarded / "dev/dri/renderD128").chmod(0o666)
    os.chown(guarded / "dev/dri/renderD128", 0, 44)
    assert only(detect(guarded, STRANGER)).gids == (992,)


def test_access_of_this_process_is_checked_by_the_kernel(host: Path) -> None:
    add_amd_gpu(host, 1, 90402, 128)
    assert User.caller().this_process
    assert only(detect(host)).unusable == ""


# NVIDIA


def test_an_h100_is_found_without_nvidia_smi(nvidia_host: Path) -> None:
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 0)
    machine = detect(nvidia_host, STRANGER)
    assert only(machine) == Gpu(
        vendor="nvidia",
        index=0,
        name="NVIDIA H100 80GB HBM3",
        node="/dev/nvidia0",
        uuid="GPU-eaf23aa1-4d3d-596c-da66-b86b0e5db584",
        devices=("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"),
    )
    assert (machine.nvidia, machine.amdgpu) == ("580.95.05", False)


@pytest.mark.parametrize("wording", [OPEN_MODULE, OWN_MODULE])
def test_the_drivers_version_is_read_from_either_module(tmp_path: Path, wording: str) -> None:
    nvidia_driver(tmp_path, "580.95.05", wording)
    assert nvidia_gpus.driver_version(tmp_path) == "580.95.05"


def test_the_drivers_version_is_also_read_from_sys(tmp_path: Path) -> None:
    write(tmp_path / "sys/module/nvidia/version", "580.95\n")
    assert nvidia_gpus.driver_version(tmp_path) == "580.95"


def test_a_driver_too_old_for_cuda_13_is_reported_with_both_versions(tmp_path: Path) -> None:
    nvidia_driver(tmp_path, "550.54.14", OWN_MODULE)
    add_nvidia_gpu(tmp_path, "0000:04:00.0", 0)
    gpu = only(detect(tmp_path, STRANGER))
    assert "550.54.14" in gpu.unusable
    assert "580" in gpu.unusable
    assert "580" in gpu.fix


def test_the_node_has_the_drivers_minor_and_the_order_is_that_of_the_bus(nvidia_host: Path) -> None:
    for place, minor in [("0000:48:00.0", 0), ("0000:07:00.0", 2), ("0000:c8:00.0", 1)]:
        add_nvidia_gpu(nvidia_host, place, minor)
    nodes = [(gpu.index, gpu.node) for gpu in detect(nvidia_host, STRANGER).gpus]
    assert nodes == [(0, "/dev/nvidia2"), (1, "/dev/nvidia0"), (2, "/dev/nvidia1")]


def test_a_gpu_that_the_driver_excludes_is_unusable(nvidia_host: Path) -> None:
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 0, excluded="Yes")
    assert "exclude it" in only(detect(nvidia_host, STRANGER)).unusable


def test_a_sleeping_gpu_has_no_name_and_no_uuid(nvidia_host: Path) -> None:
    unknown = "GPU-????????-????-????-????-????????????"
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 0, model="Unknown", uuid=unknown)
    gpu = only(detect(nvidia_host, STRANGER))
    assert (gpu.name, gpu.uuid, gpu.unusable) == ("NVIDIA GPU at 0000:04:00.0", "", "")


def test_a_node_that_does_not_exist_yet_is_a_note(nvidia_host: Path) -> None:
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 0)
    (nvidia_host / "dev/nvidia-uvm").unlink()
    machine = detect(nvidia_host, STRANGER)
    assert only(machine).unusable == ""
    assert any("/dev/nvidia-uvm doesn't exist yet" in note for note in machine.notes)


@needs_root
def test_an_nvidia_node_can_be_closed_too(nvidia_host: Path) -> None:
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 0)
    (nvidia_host / "dev/nvidia0").chmod(0o660)
    os.chown(nvidia_host / "dev/nvidia0", 0, 44)
    gpu = only(detect(nvidia_host, STRANGER))
    assert "uid 4242 may not open /dev/nvidia0" in gpu.unusable
    assert gpu.gids == (44,)


def test_a_driver_without_a_gpu_is_no_gpu(nvidia_host: Path) -> None:
    absences = detect(nvidia_host, STRANGER).absences
    assert "no NVIDIA GPU (/proc/driver/nvidia has no GPU)" in absences


def test_nvidia_smi_adds_memory_capability_and_its_own_order(
    nvidia_host: Path, nvidia_smi: Path
) -> None:
    add_nvidia_gpu(nvidia_host, "0000:04:00.0", 1)
    add_nvidia_gpu(nvidia_host, "0000:c8:00.0", 0)
    rows = (
        "0, NVIDIA H100 80GB HBM3, 81559, 9.0, GPU-b, 00000000:C8:00.0\n"
        "1, NVIDIA A100-SXM4-40GB, 40960, 8.0, GPU-a, 00000000:04:00.0"
    )
    fake_nvidia_smi(nvidia_smi, f'echo "$*" > {nvidia_smi}/asked\ncat <<END\n{rows}\nEND')
    first, second = detect(nvidia_host, STRANGER, ask_nvidia_smi=True).gpus
    assert (first.index, first.target, first.node) == (0, "9.0", "/dev/nvidia0")
    assert (first.vram_bytes, first.uuid) == (81559 * 2**20, "GPU-b")
    assert (second.index, second.name, second.node) == (1, "NVIDIA A100-SXM4-40GB", "/dev/nvidia1")
    assert "--format=csv,noheader,nounits" in (nvidia_smi / "asked").read_text()


def test_a_value_that_nvidia_smi_does_not_know_is_unknown(
    nvidia_host: Path, nvidia_smi: Path
) -> None:
    add_nvidia_gpu(nvidia_host, "0000:01:00.0", 0)
    fake_nvidia_smi(nvidia_smi, 'echo "0, NVIDIA GB10, [N/A], [N/A], GPU-b, 00000000:01:00.0"')
    gpu = only(detect(nvidia_host, STRANGER, ask_nvidia_smi=True))
    assert (gpu.name, gpu.vram_bytes, gpu.target, gpu.unusable) == ("NVIDIA GB10", 0, "", "")


def test_a_gpu_too_old_for_cuda_13_is_unusable(nvidia_host: Path, nvidia_smi: Path) -> None:
    for place, minor in [("0000:01:00.0", 0), ("0000:02:00.0", 1)]:
        add_nvidia_gpu(nvidia_host, place, minor)
    fake_nvidia_smi(
        nvidia_smi,
        'echo "0, Tesla V100-SXM2-32GB, 32768, 7.0, GPU-a, 00000000:01:00.0"\n'
        'echo "1, NVIDIA RTX PRO 6000, 97887, 12.0, GPU-b, 00000000:02:00.0"',
    )
    old, new = detect(nvidia_host, STRANGER, ask_nvidia_smi=True).gpus
    assert "7.5" in old.unusable and "7.0" in old.unusable
    assert new.unusable == ""


def test_a_failing_nvidia_smi_is_a_note(nvidia_host: Path, nvidia_smi: Path) -> None:
    add_nvidia_gpu(nvidia_host, "0000:01:00.0", 0)
    message = "Failed to initialize NVML: Driver/library version mismatch"
    fake_nvidia_smi(nvidia_smi, f'echo "{message}"; exit 18')
    machine = detect(nvidia_host, STRANGER, ask_nvidia_smi=True)
    assert only(machine).name == "NVIDIA H100 80GB HBM3"
    assert machine.notes == (f"nvidia-smi fails (18): {message}",)


def test_a_hanging_nvidia_smi_is_a_note_in_time(nvidia_smi: Path) -> None:
    fake_nvidia_smi(nvidia_smi, "exec sleep 60")
    properties, note = nvidia_gpus.nvidia_smi(timeout=0.2)
    assert (properties, note) == ({}, "nvidia-smi doesn't respond within 0.2 s")


def test_a_tree_of_files_is_not_mixed_with_this_machines_nvidia_smi(
    nvidia_host: Path, nvidia_smi: Path
) -> None:
    add_nvidia_gpu(nvidia_host, "0000:01:00.0", 0)
    fake_nvidia_smi(nvidia_smi, f"touch {nvidia_smi}/asked")
    detect(nvidia_host, STRANGER)
    assert not (nvidia_smi / "asked").exists()


def test_both_vendors_are_detected_in_one_machine(host: Path) -> None:
    nvidia_driver(host, "580.95.05")
    add_nvidia_gpu(host, "0000:01:00.0", 0)
    add_amd_gpu(host, 1, 110000, 128)
    machine = detect(host, STRANGER)
    assert [(gpu.vendor, gpu.index) for gpu in machine.gpus] == [("amd", 0), ("nvidia", 0)]
    assert machine.absences == ()
