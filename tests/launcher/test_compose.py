"""The translation of compose.yaml into a container spec."""

import os
import subprocess

from launcher import compose
from launcher.container_spec import Bind

import pytest

# Output of `docker compose config --format json` for services.cpu (Compose 2.26, LABS_MEMORY=8g).
RECORDED = {
    "profiles": ["cpu"],
    "build": {"context": "/clone/docker", "args": {"BASE_IMAGE": "base"}},
    "cap_drop": ["ALL"],
    "command": None,
    "entrypoint": None,
    "image": "llm-labs:cpu",
    "init": True,
    "mem_limit": "8589934592",
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
        ("networks", {"default": None}),
        ("command", ["LLM06"]),
    ],
)
def test_an_unknown_key_is_an_error(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        compose.translate({**RECORDED, key: value})


@pytest.mark.parametrize(
    "volume",
    [
        {"type": "volume", "source": "named", "target": "/x"},
        {"type": "bind", "source": "/a", "target": "/x", "bind": {"create_host_path": True}},
        {"type": "bind", "source": "/a", "target": "/x", "bind": {"propagation": "shared"}},
        {"type": "bind", "source": "/a", "target": "/x", "consistency": "cached"},
    ],
)
def test_an_unknown_kind_of_volume_is_an_error(volume: dict) -> None:
    with pytest.raises(ValueError, match="volume"):
        compose.translate({**RECORDED, "volumes": [volume]})


def test_the_sdk_and_docker_run_get_the_same_settings() -> None:
    container = compose.translate(RECORDED)
    arguments = container.sdk_arguments()
    line = container.docker_run_command()
    assert arguments["tmpfs"] == {"/tmp": "mode=1777,size=1g"}
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
        ("/lab/outputs", False),
        ("/lab/work", True),
        ("/lab/work/progress", False),
    ]
    assert set(service) - set(RECORDED) == set(), "the recorded service is out of date"


def test_a_missing_docker_command_is_a_card(monkeypatch) -> None:
    from launcher.cards import Card

    monkeypatch.setitem(os.environ, "PATH", "/nonexistent")
    with pytest.raises(Card) as caught:
        compose.resolve("cpu", {})
    assert caught.value.what == "The docker command is missing."
