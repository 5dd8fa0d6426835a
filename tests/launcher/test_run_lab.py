"""The choice of the runtime, and the cards for engines that are missing or refuse."""

import os
import shlex
import shutil
import stat
from pathlib import Path

from common.cards import Card
from launcher.environment import stack
from launcher.run import file_owner
from launcher.run.file_owner import Owner
from tests.conftest import BIN, SOMEBODY, Clone, as_user

import pytest

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}


def is_a_card(err: str) -> bool:
    lines = [line.split(":", 1)[0] for line in err.splitlines()]
    return [one for one in lines if one in ("what", "why", "fix")] == ["what", "why", "fix"]


def test_docker_without_an_engine_is_a_card(clone: Clone) -> None:
    ended = clone.invoke("lab", clone.bare_lab("pass"), "--runtime", "docker", **NOWHERE)
    assert ended.code == 3, ended
    assert is_a_card(ended.err), ended
    assert "No container engine is running." in ended.err
    assert "--runtime venv" in ended.err


def test_auto_without_an_engine_uses_the_environment_and_prints_the_reason(clone: Clone) -> None:
    ended = clone.invoke("--dry", "lab", clone.bare_lab("pass"), **NOWHERE)
    assert ended.code == 0, ended
    assert "in an environment" in ended.err
    assert "because no container engine is running" in ended.err
    assert "docker run" not in ended.out


@pytest.mark.engine
def test_auto_with_an_engine_uses_a_container_and_prints_the_reason(clone: Clone) -> None:
    ended = clone.invoke("lab", clone.bare_lab("print('ran')"))
    assert ended.code == 0, ended
    assert "in a container" in ended.err
    assert "because a container engine is running" in ended.err


@pytest.mark.parametrize(("stack", "vendor"), [("cuda", "NVIDIA"), ("rocm", "AMD")])
def test_a_stack_without_a_gpu_is_a_card(clone: Clone, stack: str, vendor: str) -> None:
    ended = clone.invoke("lab", clone.bare_lab("pass"), "--stack", stack)
    assert ended.code == 3, ended
    assert is_a_card(ended.err), ended
    assert f"This machine has no {vendor} GPU." in ended.err


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--stack", "tpu", "auto, cpu, cuda, rocm"),
        ("--runtime", "podman", "auto, docker, venv"),
        ("--size", "huge", "tiny"),
        ("--precision", "fp8", "bf16"),
        ("--seed", "-1", "integer"),
        ("--seed", "4294967296", "integer"),
        ("--seed", "x", "integer"),
    ],
)
def test_an_unknown_value_is_a_card(clone: Clone, option: str, value: str, known: str) -> None:
    ended = clone.invoke("lab", clone.bare_lab("print('ran')"), f"{option}={value}")
    assert ended.code == 2, ended
    assert is_a_card(ended.err), ended
    assert known in ended.err
    assert ended.out == ""


def test_an_unknown_lab_is_a_card_with_similar_names(clone: Clone) -> None:
    clone.bare_lab("pass", "LLM91")
    ended = clone.invoke("lab", "LLM911")
    assert ended.code == 2, ended
    assert is_a_card(ended.err), ended
    assert "There is no lab called 'LLM911'" in ended.err
    assert "LLM91" in ended.err


@pytest.mark.engine
@pytest.mark.usefixtures("socket_group")
def test_a_user_without_access_to_the_socket_gets_a_card(clone: Clone) -> None:
    assert not stat.S_IMODE(Path("/var/run/docker.sock").stat().st_mode) & stat.S_IWOTH
    lab = clone.bare_lab("print('ran')")
    clone.give_to(SOMEBODY)
    user = as_user(SOMEBODY)
    for runtime in ("docker", "auto"):
        words = ("lab", lab, "--runtime", runtime)
        ended = clone.invoke(*words, user=user, HOME=str(clone.path))
        assert ended.code == 3, ended
        assert is_a_card(ended.err), ended
        assert "This user may not use the container engine." in ended.err
        assert "usermod -aG docker" in ended.err


# The docker command and its plugins


@pytest.mark.engine
def test_a_missing_docker_command_is_a_card(clone: Clone) -> None:
    empty = clone.path / "empty"
    empty.mkdir()
    ended = clone.invoke("lab", clone.bare_lab("pass"), "--runtime", "docker", PATH=str(empty))
    assert ended.code == 3, ended
    assert is_a_card(ended.err), ended
    assert "The docker command is missing." in ended.err


def plugin_folders() -> list[Path]:
    """Return the system's folders of docker plugins."""
    roots = ("/usr/libexec", "/usr/lib", "/usr/local/lib", "/usr/local/libexec")
    folders = [Path(root) / "docker" / "cli-plugins" for root in roots]
    return [folder for folder in folders if folder.is_dir()]


@pytest.fixture
def without_plugin(clone: Clone):
    """Return a function that puts a docker without a plugin on PATH: a wrapper of the real one."""
    real = shutil.which("docker")
    folder = clone.path / "fake"
    folder.mkdir()

    def hide(plugin: str, text: str) -> str:
        fake = folder / "docker"
        fake.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *{plugin}*) printf "%s\\n" "{text}" >&2; exit 1;; esac\n'
            f'exec "{real}" "$@"\n'
        )
        fake.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return hide


@pytest.mark.engine
@pytest.mark.parametrize(
    "text",
    [
        # Output of Docker 26 for `docker compose --file … config` without the plugin.
        "unknown flag: --file\nSee 'docker --help'.",
        "unknown shorthand flag: 'f' in -f\nSee 'docker --help'.",
        "docker: 'compose' is not a docker command.\nSee 'docker --help'",
        "docker: unknown command: docker compose\n\nRun 'docker --help' for more information",
    ],
)
def test_a_missing_compose_plugin_is_a_card(clone: Clone, without_plugin, text: str) -> None:
    path = without_plugin("compose", text)
    ended = clone.invoke("lab", clone.bare_lab("pass"), "--runtime", "docker", PATH=path)
    assert ended.code == 3, ended
    assert is_a_card(ended.err), ended
    assert "Docker's compose plugin is missing." in ended.err


@pytest.mark.engine
def test_a_real_docker_without_compose_is_a_card(clone: Clone) -> None:
    """Hide the plugins of the real docker command by mounting an empty folder over them."""
    here = plugin_folders()
    if os.geteuid() != 0 or not here:
        pytest.skip("only root can hide docker's plugins, and only those in a system folder")
    lab = clone.bare_lab("pass")
    hide = "; ".join(f"mount -t tmpfs tmpfs {place}" for place in here)
    words = f"{hide}; exec '{BIN / 'invoke'}' lab {lab} --runtime docker"
    ended = clone.run("unshare", "--mount", "sh", "-c", words, HOME=str(clone.path))
    assert ended.code == 3, ended
    assert "Docker's compose plugin is missing." in ended.err


@pytest.mark.engine
def test_without_the_buildx_plugin_the_image_is_built_or_a_card_names_it(
    clone: Clone, engine
) -> None:
    """Hide the system's plugins and provide only compose in HOME.

    Compose up to 2.36 includes a client for BuildKit; later versions use the plugin.
    """
    here = plugin_folders()
    compose = [one for place in here if (one := place / "docker-compose").exists()]
    if os.geteuid() != 0 or not compose:
        pytest.skip("only root can hide docker's plugins; compose must be in a system folder")
    plugins = clone.path / ".docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    shutil.copy2(compose[0], plugins)
    (clone.path / "docker" / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    clone.change("compose.yaml", "image: llm-labs:cpu", "image: llm-labs:without-buildx")
    hide = "; ".join(f"mount -t tmpfs tmpfs {place}" for place in here)
    words = f"{hide}; exec '{BIN / 'invoke'}' build --runtime docker"
    ended = clone.run("unshare", "--mount", "sh", "-c", words, HOME=str(clone.path))
    if ended.code == 0:
        engine.images.remove("llm-labs:without-buildx")
        return
    assert ended.code == 3, ended
    assert is_a_card(ended.err), ended
    assert "Docker's buildx plugin is missing." in ended.err


def test_options_work_in_any_order_and_quoting_is_preserved(clone: Clone) -> None:
    lab = clone.bare_lab("pass")
    words = ("--dry", "lab", "--seed", "3", lab, "--runtime", "venv", "--size=tiny")
    ended = clone.invoke(*words, "--", "--word", "a b", "c'd")
    assert ended.code == 0, ended
    command = shlex.split(ended.out.splitlines()[-1])
    assert command[-3:] == ["--word", "a b", "c'd"]
    given = command[command.index(lab) :]
    assert given[given.index("--size") + 1] == "tiny"
    assert given[given.index("--seed") + 1] == "3"


# Tests in this process


def test_every_stack_has_a_reason() -> None:
    assert stack.choose_stack("cpu").reason == "it was asked for"
    assert stack.choose_stack("auto").stack == "cpu"
    assert stack.choose_stack("auto").reason != stack.choose_stack("cpu").reason


@pytest.mark.usefixtures("root")
def test_root_runs_a_lab_in_the_environment_as_the_owner_of_the_clone(capfd) -> None:
    words = ["/bin/sh", "-c", "id -u; id -g; id -G; echo $HOME"]
    assert file_owner.run_as_owner(Owner(SOMEBODY, SOMEBODY), words, dict(os.environ)) == 0
    uid, gid, groups, _ = capfd.readouterr().out.splitlines()
    assert {uid, gid, groups} == {str(SOMEBODY)}


@pytest.mark.usefixtures("root")
def test_a_python_that_the_owner_may_not_execute_is_a_card(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    shutil.copy2("/bin/true", tmp_path / "python")
    with pytest.raises(Card) as caught:
        file_owner.run_as_owner(
            Owner(SOMEBODY, SOMEBODY), [str(tmp_path / "python")], dict(os.environ)
        )
    assert "can't run" in caught.value.what
    assert "without sudo" in caught.value.fix


def test_the_exit_code_of_a_signal_is_128_plus_its_number() -> None:
    me = Owner(os.geteuid(), os.getegid())
    assert file_owner.run_as_owner(me, ["/bin/sh", "-c", "kill -9 $$"], dict(os.environ)) == 137
    assert file_owner.run_as_owner(me, ["/bin/sh", "-c", "exit 5"], dict(os.environ)) == 5
