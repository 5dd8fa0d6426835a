"""The translation of compose.yaml into a container spec."""

import os
import subprocess
from pathlib import Path

from common.cards import Card
from launcher import ROOT
from launcher.engine import compose
from launcher.engine.container_spec import Bind, ContainerSpec

import pytest

# Output of `docker compose config --format json` for services.cpu (Compose 2.26, LABS_MEMORY=8g).
RECORDED = {
    "profiles": ["cpu"],
    "build": {"context": "/clone/docker", "args": {"BASE_IMAGE": "base"}},
    "cap_drop": ["ALL"],
    "command": None,
    "entrypoint": None,
    "image": "llm-labs:cpu",
    "environment": {"TZ": "UTC0"},
    "init": True,
    "mem_limit": "8589934592",
    "memswap_limit": "8589934592",
    "network_mode": "none",
    "pids_limit": 4096,
    "pull_policy": "never",
    "read_only": True,
    "security_opt": ["no-new-privileges:true"],
    "shm_size": "1073741824",
    "tmpfs": ["/tmp:mode=1777,size=1g"],
    "user": "1000:1000",
    "volumes": [
        {
            "type": "bind",
            "source": "/clone/labs",
            "target": "/lab/labs",
            "read_only": True,
            "bind": {},
        },
        {"type": "bind", "source": "/clone/outputs", "target": "/lab/outputs", "bind": {}},
        {
            "type": "bind",
            "source": "/clone/work",
            "target": "/lab/work",
            "read_only": True,
            "bind": {},
        },
        {
            "type": "bind",
            "source": "/clone/work/progress",
            "target": "/lab/work/progress",
            "bind": {},
        },
    ],
}


def test_a_recorded_service_is_translated_completely() -> None:
    container = compose.translate(RECORDED)
    assert container.image == "llm-labs:cpu"
    assert container.user == "1000:1000"
    assert container.network_mode == "none"
    assert container.init and container.read_only
    assert container.cap_drop == ("ALL",)
    assert container.security_opt == ("no-new-privileges:true",)
    assert container.tmpfs == ("/tmp:mode=1777,size=1g",)
    assert (container.shm_size, container.pids_limit, container.mem_limit) == (2**30, 4096, 2**33)
    assert container.binds == (
        Bind("/clone/labs", "/lab/labs", read_only=True),
        Bind("/clone/outputs", "/lab/outputs"),
        Bind("/clone/work", "/lab/work", read_only=True),
        Bind("/clone/work/progress", "/lab/work/progress"),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privileged", True),
        ("cap_add", ["SYS_ADMIN"]),
        ("deploy", {"resources": {"limits": {"cpus": "2"}}}),
        ("logging", {"driver": "none"}),
        ("entrypoint", ["sh"]),
    ],
)
def test_an_unknown_key_is_a_card(key: str, value: object) -> None:
    with pytest.raises(Card, match=rf"compose.yaml sets '{key}") as refused:
        compose.translate({**RECORDED, key: value})
    assert "docker compose run" in refused.value.fix


@pytest.mark.parametrize(
    "volume",
    [
        {"type": "volume", "source": "named", "target": "/x"},
        {"type": "bind", "source": "/a", "target": "/x", "bind": {"create_host_path": True}},
        {"type": "bind", "source": "/a", "target": "/x", "bind": {"propagation": "shared"}},
        {"type": "bind", "source": "/a", "target": "/x", "consistency": "cached"},
    ],
)
def test_an_unknown_kind_of_volume_is_a_card(volume: dict) -> None:
    with pytest.raises(Card, match=r"compose.yaml sets 'volumes'"):
        compose.translate({**RECORDED, "volumes": [volume]})


def test_the_sdk_and_docker_run_get_the_same_settings() -> None:
    container = compose.translate(RECORDED)
    arguments = container.sdk_arguments()
    line = container.docker_run_command()
    assert arguments["tmpfs"] == {"/tmp": "mode=1777,size=1g"}
    assert arguments["memswap_limit"] == 2**33
    assert arguments["mounts"][0]["ReadOnly"] and not arguments["mounts"][1]["ReadOnly"]
    for word in (
        "--read-only",
        "--init",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
        "--tmpfs=/tmp:mode=1777,size=1g",
        f"--shm-size={2**30}",
        "--pids-limit=4096",
        f"--memory={2**33}",
        f"--memory-swap={2**33}",
        "type=bind,source=/clone/labs,target=/lab/labs,readonly",
    ):
        assert word in line


def test_the_real_file_is_translated_completely() -> None:
    try:
        asked = subprocess.run(["docker", "compose", "version"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("the docker command isn't here")
    if asked.returncode != 0:
        pytest.skip("docker's compose plugin isn't here")
    service = compose.resolve("cpu", {"LABS_UID": "7", "LABS_GID": "8", "LABS_MEMORY": "1g"})
    container = compose.translate(service)
    assert container.user == "7:8"
    assert container.mem_limit == 2**30
    assert [(bind.target, bind.read_only) for bind in container.binds] == [
        ("/lab/labs", True),
        ("/lab/common", True),
        ("/lab/outputs", False),
        ("/lab/work", True),
        ("/lab/work/progress", False),
    ]
    assert set(service) - set(RECORDED) == set(), "the recorded service is out of date"


def test_a_missing_docker_command_is_a_card(monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", "/nonexistent")
    with pytest.raises(Card) as caught:
        compose.resolve("cpu", {})
    assert caught.value.what == "The docker command is missing."


@pytest.fixture
def override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a site's override, in a folder with this clone's compose.yaml."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker's compose plugin isn't here")
    (tmp_path / "compose.yaml").write_bytes((ROOT / "compose.yaml").read_bytes())
    monkeypatch.setattr(compose, "ROOT", tmp_path)
    return tmp_path / "compose.override.yaml"


def test_the_override_that_the_comments_recommend_is_applied(override: Path) -> None:
    override.write_text("services: { cpu: { security_opt: [label=disable] } }")
    spec = compose.translate(compose.resolve("cpu", {}))
    assert "label=disable" in spec.security_opt


def test_a_site_may_pin_cpus_and_set_limits(override: Path) -> None:
    override.write_text(
        "services:\n  cpu:\n    cpuset: 0-1\n    cgroup_parent: /labs\n"
        "    ulimits: { core: 0, nofile: { soft: 10, hard: 20 } }\n"
    )
    spec = compose.translate(compose.resolve("cpu", {}))
    assert (spec.cpuset, spec.cgroup_parent) == ("0-1", "/labs")
    arguments = spec.sdk_arguments()
    assert arguments["cpuset_cpus"] == "0-1"
    assert {(one["Name"], one["Soft"], one["Hard"]) for one in arguments["ulimits"]} == {
        ("core", 0, 0),
        ("nofile", 10, 20),
    }
    line = spec.docker_run_command()
    for word in ("--cpuset-cpus=0-1", "--cgroup-parent=/labs", "--ulimit=nofile=10:20"):
        assert word in line


def test_a_key_of_the_override_that_cannot_be_applied_is_a_card(override: Path) -> None:
    override.write_text("services: { cpu: { logging: { driver: none } } }")
    with pytest.raises(Card) as refused:
        compose.translate(compose.resolve("cpu", {}))
    assert refused.value.what == f"{override} sets 'logging', which `invoke lab` can't apply."


def test_an_invalid_override_is_quoted_in_full(override: Path) -> None:
    override.write_text("services: { cpu: { cpu_shares: many } }")
    with pytest.raises(Card) as refused:
        compose.resolve("cpu", {})
    assert refused.value.what == "compose.yaml with compose.override.yaml can't be read."
    assert "cpu_shares" in refused.value.why


def test_a_path_with_a_comma_is_quoted_for_docker_run() -> None:
    spec = ContainerSpec("image", binds=(Bind("/a, b/labs", "/lab/labs", read_only=True),))
    line = spec.docker_run_command()
    assert (
        line[line.index("--mount") + 1] == 'type=bind,"source=/a, b/labs",target=/lab/labs,readonly'
    )
