"""The launcher, the lines of `--dry` and `docker compose run` start the same container."""

import shlex
from typing import Any

import docker
from tests.conftest import BIN, SOMEBODY, Clone, Running, containers_of
from tests.launcher.compare_containers import differences, inspected_settings

import pytest

pytestmark = pytest.mark.engine


def inspected(clone: Clone, running: Running) -> dict[str, Any]:
    """Return the settings of the only running container, then let the lab end."""
    running.wait_for("begun")
    (one,) = containers_of(clone)
    seen = inspected_settings(one.attrs)
    (clone.outputs / "go").touch()
    assert running.ended().code == 0, running.text
    (clone.outputs / "go").unlink()
    assert containers_of(clone) == []
    return seen


def test_three_ways_to_run_a_lab_give_the_same_container(clone: Clone) -> None:
    lab = clone.bare_lab("print('begun')\nwait_for('go')")
    how = {"LABS_MEMORY": "1g", "LABS_UID": str(SOMEBODY), "LABS_GID": str(SOMEBODY)}
    clone.outputs.mkdir()
    clone.outputs.chmod(0o777)
    clone.path.chmod(0o755)
    clone.give_to(SOMEBODY)
    words = ("lab", lab, "--runtime", "docker", "--seed", "3")
    by_sdk = inspected(clone, clone.start_invoke(*words, **how))

    dry = clone.invoke("--dry", *words, **how)
    assert dry.code == 0, dry
    pasted = inspected(clone, clone.start("bash", "-c", dry.out))
    assert differences(by_sdk, pasted) == {}

    command = shlex.split(dry.out.splitlines()[-1])
    arguments = command[command.index(lab) :]
    compose = ["docker", "compose", "run", "--rm", "-T", "cpu", *arguments]
    assert differences(by_sdk, inspected(clone, clone.start(*compose, **how))) == {}

    # The settings are also the right ones.
    assert by_sdk["Config.User"] == f"{SOMEBODY}:{SOMEBODY}"
    assert by_sdk["HostConfig.Memory"] == 2**30
    assert by_sdk["HostConfig.NetworkMode"] == "none"
    assert by_sdk["HostConfig.ReadonlyRootfs"] is True
    assert by_sdk["HostConfig.CapDrop"] == ["ALL"]
    assert by_sdk["HostConfig.SecurityOpt"] == ["no-new-privileges:true"]
    assert by_sdk["HostConfig.PidsLimit"] == 4096
    assert by_sdk["mounts"] == [
        (f"{clone.path}/common", "/lab/common", False),
        (f"{clone.path}/labs", "/lab/labs", False),
        (f"{clone.path}/outputs", "/lab/outputs", True),
        (f"{clone.path}/work", "/lab/work", False),
        (f"{clone.path}/work/progress", "/lab/work/progress", True),
    ]


def test_dry_runs_and_creates_nothing(clone: Clone) -> None:
    lab = clone.bare_lab("open('outputs/ran', 'w')")
    ended = clone.invoke("--dry", "lab", lab, "--runtime", "docker")
    assert ended.code == 0, ended
    assert not clone.outputs.exists()
    assert "docker run --rm" in ended.out
    assert "a container" in ended.err, "the runtime and the reason are printed too"


def test_dry_prints_the_necessary_build_first(clone: Clone) -> None:
    clone.change("docker/stack.py", '"""Check', '"""(changed) Check')
    ended = clone.invoke("--dry", "lab", clone.bare_lab("pass"), "--runtime", "docker")
    assert ended.code == 0, ended
    build, *folders, run = ended.out.splitlines()
    assert " docker compose " in build and build.endswith(" build cpu &&"), (
        "otherwise a stale image would run"
    )
    made = (f"{clone.path}/outputs", f"{clone.path}/work/progress")
    assert folders == [f"mkdir -p {one} &&" for one in made]
    assert run.startswith("docker run ")


def test_a_pasted_line_runs_in_a_folder_with_a_space_a_quote_and_a_comma(clone: Clone) -> None:
    odd = Clone(clone.path / "it's a clone, too")
    odd.path.mkdir()
    parts = ("compose.yaml", "common", "docker", "labs", "launcher", "tasks.py", "pyproject.toml")
    assert clone.run("cp", "-r", *parts, str(odd.path)).code == 0
    lab = odd.bare_lab("print(arguments[-3:])\nopen('outputs/ran', 'w')")
    dry = odd.invoke(
        "--dry", "lab", lab, "--runtime", "docker", "--", "--word", "a 'b' $HOME", "é*"
    )
    pasted = odd.run("bash", "-c", dry.out)
    for one in odd.started:
        one.close()
    assert pasted.code == 0, (dry, pasted)
    assert pasted.out.splitlines()[-1] == str(["--word", "a 'b' $HOME", "é*"])
    assert (odd.outputs / "ran").exists()


@pytest.mark.usefixtures("root")
def test_root_can_paste_the_lines_in_a_clone_of_another_user(clone: Clone) -> None:
    lab = clone.bare_lab("open('outputs/mine', 'w')")
    clone.give_to(SOMEBODY)
    dry = clone.invoke("--dry", "lab", lab, "--runtime", "docker")
    pasted = clone.run("bash", "-c", dry.out)
    assert pasted.code == 0, (dry, pasted)
    assert (clone.outputs / "mine").stat().st_uid == SOMEBODY


def test_the_compose_line_of_the_documentation_runs(clone: Clone) -> None:
    page = (clone.path / "docs" / "administrators.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if "docker compose run" in line]
    lab = clone.bare_lab("print('ran', os.getuid())")
    assert clone.invoke("dotenv").code == 0
    assert f"\nLABS_UID={clone.path.stat().st_uid}\n" in (clone.path / ".env").read_text()
    ended = clone.run("bash", "-c", line.replace("--rm", "--rm -T").replace("LLM06", lab))
    assert ended.code == 0, ended
    assert ended.out.strip() == f"ran {clone.path.stat().st_uid}"


def test_the_dry_lines_for_the_environment_are_complete(clone: Clone) -> None:
    ended = clone.run(str(BIN / "invoke"), "--dry", "lab", "LLM06", "--runtime", "venv")
    assert ended.code == 0, ended
    last = ended.out.splitlines()[-1]
    assert last.startswith(f"cd {clone.path} && ")
    assert f" LABS_HOME={clone.path}/.lab-env/" in last
    assert "requirements.lock" in ended.out
    assert not (clone.path / ".lab-env").exists()


def test_a_dry_hub_neither_builds_nor_writes(clone: Clone) -> None:
    clone.change("docker/seat.bashrc", "PS1=", "# changed\nPS1=")
    before = image_names()
    dry = clone.invoke("--dry", "hub")
    assert dry.code == 0, dry
    build, up = dry.out.splitlines()
    assert build.endswith(" build seat")
    assert up.endswith(" up --detach --no-build hub")
    assert "invoke hub also writes" in dry.err
    assert not (clone.path / "workshop").exists()

    state = clone.path / "workshop" / "state" / "hub.json"
    state.parent.mkdir(parents=True)
    state.write_text("of a hub that runs")
    settings = 'port = 8123\npassword = "a-shared-word"\nteacher_password = "a-longer-word"\n'
    (clone.path / "workshop" / "hub.toml").write_text(settings)
    dry = clone.invoke("--dry", "hub")
    assert dry.code == 0, dry
    assert "LABS_HUB_PORT=8123" in dry.out
    assert state.read_text() == "of a hub that runs"
    assert {path.name for path in state.parent.iterdir()} == {"hub.json"}
    assert image_names() == before


def image_names() -> set[str]:
    client = docker.from_env()
    try:
        return {name for image in client.images.list() for name in image.tags}
    finally:
        client.close()
