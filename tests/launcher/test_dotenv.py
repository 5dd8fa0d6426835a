"""`invoke dotenv`: the file, its lines, and the lines that a user adds."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

from common.cards import Card
from launcher import ROOT, dotenv
from launcher.engine.client import Engine
from launcher.gpu.detect import Machine
from launcher.gpu.model import AMD, NVIDIA, Gpu
from launcher.run.file_owner import Owner

import pytest

ALICE = Owner(1000, 1000)


def mi300x(index: int, gids: tuple[int, ...] = (992,), unusable: str = "") -> Gpu:
    node = f"/dev/dri/renderD{128 + 8 * index}"
    name = "AMD Instinct MI300X"
    return Gpu(AMD, index, name, "gfx942", 192 * 2**30, node, unusable, gids=gids)


APU = Gpu(AMD, 1, "AMD Radeon 890M", "gfx1150", 2**30, "/dev/dri/renderD129", integrated=True)
H100 = Gpu(NVIDIA, 0, "NVIDIA H100", "9.0", 80 * 2**30, "/dev/nvidia0")


def values(*gpus: Gpu) -> dict[str, str]:
    return {line.name: line.value for line in dotenv.gpu_lines(Machine(gpus), ALICE)}


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the file, on a machine with one GPU and no engine."""
    monkeypatch.setattr(dotenv, "detect", lambda **_: Machine((mi300x(0),)))
    monkeypatch.setattr(dotenv, "running_engine", lambda: None)
    return tmp_path / ".env"


def test_one_gpu_gives_its_node_and_several_give_the_folder() -> None:
    assert values(mi300x(0))["LABS_RENDER_NODES"] == "/dev/dri/renderD128"
    assert values(mi300x(0), mi300x(1))["LABS_RENDER_NODES"] == "/dev/dri"


def test_a_discrete_gpu_is_preferred_over_an_apu() -> None:
    lines = values(APU, mi300x(0))
    assert lines["LABS_GFX"] == "gfx942"
    assert lines["LABS_RENDER_NODES"] == "/dev/dri/renderD128"


def test_a_usable_gpu_is_preferred_over_an_unusable_one() -> None:
    assert values(mi300x(0, unusable="is lost"), mi300x(1))["LABS_RENDER_NODES"] == (
        "/dev/dri/renderD136"
    )


@pytest.mark.parametrize(
    ("gids", "groups"),
    [
        ((992,), ("992", "44")),
        ((44,), ("44", "1000")),
        ((992, 44), ("992", "44")),
        ((), ("44", "1000")),
    ],
)
def test_the_two_groups_always_differ(gids: tuple[int, ...], groups: tuple[str, str]) -> None:
    # Compose refuses a repeated group.
    lines = values(mi300x(0, gids))
    assert (lines["LABS_RENDER_GID"], lines["LABS_VIDEO_GID"]) == groups


@pytest.mark.parametrize(
    ("variables", "node"),
    [
        ({"ROCR_VISIBLE_DEVICES": "1,2"}, "/dev/dri/renderD136"),
        ({"LABS_RENDER_NODES": "/dev/dri/renderD144"}, "/dev/dri/renderD144"),
        ({"SLURM_JOB_GPUS": "2,1", "ROCR_VISIBLE_DEVICES": "0,1"}, "/dev/dri/renderD144"),
    ],
)
def test_a_restricted_shell_does_not_write_all_gpus(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], node: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert values(mi300x(0), mi300x(1), mi300x(2))["LABS_RENDER_NODES"] == node


def test_an_unusable_gpu_is_not_in_the_folder_of_all_nodes() -> None:
    gpus = (mi300x(0), mi300x(1), mi300x(2, unusable="is another job's"))
    assert values(*gpus)["LABS_RENDER_NODES"] == "/dev/dri/renderD128"


def test_a_restricted_shell_does_not_write_all_nvidia_gpus(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert values(H100, replace(H100, index=1, uuid="GPU-b"))["LABS_GPUS"] == "GPU-b"


def test_an_nvidia_gpu_needs_no_node_and_no_group() -> None:
    assert values(H100) == {"LABS_GPUS": "all"}
    assert values() == {}


def test_a_rootless_engine_gives_uid_0() -> None:
    lines = {line.name: line.value for line in dotenv.user_lines(ALICE, rootless=True, clone=ROOT)}
    assert (lines["LABS_UID"], lines["LABS_GID"]) == ("0", "0")
    assert lines["COMPOSE_PROJECT_NAME"] == "llm-labs-1000"


@pytest.mark.parametrize(("memory", "values"), [(10 * 2**30, ["8589934592"]), (0, [])])
def test_four_fifths_of_the_memory_if_the_engine_can_limit_it(
    memory: int, values: list[str]
) -> None:
    engine = Engine(MagicMock(), rootless=False, root_dir="", memory=memory)
    assert [line.value for line in dotenv.limit_lines(engine)] == values
    assert dotenv.limit_lines(None) == []


def test_every_variable_has_a_comment_above_it(env: Path) -> None:
    dotenv.write(str(env))
    lines = env.read_text().splitlines()
    assigned = [number for number, line in enumerate(lines) if line and line[0] not in "# "]
    assert len(assigned) == 8
    assert all(lines[number - 1].startswith("# ") for number in assigned)
    assert oct(env.stat().st_mode & 0o777) == "0o644"


def test_the_path_and_the_lines_are_printed(env: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dotenv.write(str(env))
    printed = capsys.readouterr()
    assert str(env) in printed.err
    assert "LABS_GFX=gfx942" in printed.out.splitlines()


def test_lines_of_the_user_survive_an_update(env: Path) -> None:
    dotenv.write(str(env))
    mine = "LABS_MEMORY=64g\n# and a remark\n"
    env.write_text(env.read_text().replace("LABS_GFX=gfx942", "LABS_GFX=gfx90a") + mine)
    dotenv.write(str(env))
    text = env.read_text()
    assert text.endswith(f"{dotenv.USER_SECTION}\n{mine}")
    assert "LABS_GFX=gfx942\n" in text and "gfx90a" not in text


def test_lines_of_the_user_survive_a_new_wording_of_the_heading(env: Path) -> None:
    dotenv.write(str(env))
    old = env.read_text().replace(dotenv.USER_SECTION, "# ---- Below this line is yours. ----")
    env.write_text(old + "LABS_MEMORY=64g\n")
    dotenv.write(str(env))
    assert env.read_text().endswith(f"{dotenv.USER_SECTION}\nLABS_MEMORY=64g\n")


def test_a_file_from_another_program_is_not_overwritten(env: Path) -> None:
    env.write_text("LABS_MEMORY=64g\n")
    with pytest.raises(Card, match="didn't write it"):
        dotenv.write(str(env))
    assert env.read_text() == "LABS_MEMORY=64g\n"


def test_the_fix_on_the_card_preserves_those_lines(env: Path) -> None:
    env.write_text("LABS_MEMORY=64g\n")
    with pytest.raises(Card) as refused:
        dotenv.write(str(env))
    before, _, after = refused.value.fix.split(" && ")
    subprocess.run(before, shell=True, check=True)
    dotenv.write(str(env))
    subprocess.run(after, shell=True, check=True)
    dotenv.write(str(env))
    assert env.read_text().endswith(f"{dotenv.USER_SECTION}\nLABS_MEMORY=64g\n")


def resolved(env: Path, **shell: str) -> dict:
    """Resolve compose.yaml with this file and these variables in the shell."""
    ours = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = ["docker", "compose", "--env-file", str(env), "--profile", "rocm", "config"]
    try:
        done = subprocess.run(
            [*command, "--format=json"], capture_output=True, text=True, cwd=ROOT, env=ours | shell
        )
    except FileNotFoundError:
        pytest.skip("the docker command isn't here")
    if "not a docker command" in done.stderr or "unknown flag" in done.stderr:
        pytest.skip("docker compose isn't installed")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compose_reads_the_file(env: Path) -> None:
    dotenv.write(str(env))
    config = resolved(env)
    caller = dotenv.file_owner()
    service = config["services"]["rocm"]
    assert config["name"] == f"llm-labs-{caller.uid}"
    assert service["user"] == f"{caller.uid}:{caller.gid}"
    assert service["image"] == "llm-labs:rocm-gfx942"
    assert [one["source"] for one in service["devices"]] == ["/dev/kfd", "/dev/dri/renderD128"]
    assert service["group_add"] == ["992", "44"]


def test_lines_of_the_user_override_the_file_and_the_shell_overrides_both(env: Path) -> None:
    dotenv.write(str(env))
    env.write_text(env.read_text() + "LABS_GFX=gfx90a\n")
    assert resolved(env)["services"]["rocm"]["image"] == "llm-labs:rocm-gfx90a"
    lines = resolved(env, LABS_GFX="all", LABS_UID="4242")["services"]["rocm"]
    assert lines["image"] == "llm-labs:rocm-all"
    assert lines["user"].startswith("4242:")
