"""`invoke manifest`: the Job is valid, has compose.yaml's hardening, and drops no setting."""

import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from common.cards import Card
from launcher import ROOT
from launcher.cluster import kubernetes_job
from launcher.cluster.templates import FOLDER
from launcher.engine import compose
from launcher.engine.container_spec import Bind, ContainerSpec, GpuRequest, Port
from launcher.run.file_owner import Owner
from launcher.run.lab_command import LabCommand
from tests.conftest import BIN

import kubernetes_validate
import pytest
import yaml

LAB = LabCommand(("LLM10",), ("--size", "small"))
# compose.yaml in Compose's resolved form depends on these variables only
USER = {"LABS_UID": "1234", "LABS_GID": "2345", "LABS_TZ": "CET-1", "LABS_GFX": "gfx942"}
STACKS = {"cpu": 0, "cuda": 2, "rocm": 8}
RESOURCES = {"cuda": "nvidia.com/gpu", "rocm": "amd.com/gpu"}


def spec_of(stack: str, **variables: str) -> ContainerSpec:
    return compose.translate(compose.resolve(stack, {**USER, **variables}))


def documents(spec: ContainerSpec, stack: str = "cpu", gpus: int = 0) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kubernetes_job.manifest(spec, LAB, stack, gpus, "llm-labs")))


def pod_of(written: list[dict[str, Any]]) -> Any:
    return written[0]["spec"]["template"]["spec"]


@pytest.fixture(params=list(STACKS))
def stack(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_manifest_follows_the_published_schema(stack: str) -> None:
    for document in documents(spec_of(stack), stack, STACKS[stack]):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_job_has_the_hardening_of_compose_yaml(stack: str) -> None:
    spec = spec_of(stack)
    written = documents(spec, stack, STACKS[stack])
    pod = pod_of(written)
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": list(spec.cap_drop)} == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is spec.read_only is True
    assert spec.security_opt == ("no-new-privileges:true",)
    assert security["allowPrivilegeEscalation"] is False
    user = pod["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == spec.user == "1234:2345"
    assert user["runAsNonRoot"] is True
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}  # Docker's default, too
    assert [str(group) for group in user["supplementalGroups"]] == list(spec.groups)
    assert pod["automountServiceAccountToken"] is False
    assert spec.network_mode == "none"
    policy = written[1]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    assert "ingress" not in policy
    labels = written[0]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_folders_are_those_of_compose_yaml(stack: str) -> None:
    spec = spec_of(stack)
    pod = pod_of(documents(spec, stack, STACKS[stack]))
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    for bind in spec.binds:
        mount = mounts.pop(bind.target)
        assert mount["readOnly"] is bind.read_only
        assert Path(bind.source) == ROOT / mount["subPath"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    sizes = {path: volumes[mount["name"]]["emptyDir"] for path, mount in mounts.items()}
    shm = str(spec.shm_size)
    assert sizes == {
        "/tmp": {"medium": "Memory", "sizeLimit": "1Gi"},
        "/dev/shm": {"medium": "Memory", "sizeLimit": shm},
    }


def test_gpus_are_the_device_plugins_and_each_has_a_process() -> None:
    for stack, count in STACKS.items():
        command = LAB.with_processes(count)
        spec = spec_of(stack)
        written = yaml.safe_load_all(kubernetes_job.manifest(spec, command, stack, count, "c"))
        (container,) = pod_of(list(written))["containers"]
        limits = container["resources"]["limits"]
        assert limits == ({RESOURCES[stack]: count} if count else {})
        processes = ["--processes", str(count)] if count else []
        assert container["args"] == ["LLM10", *processes, "--size", "small"]


def test_limits_of_the_site_are_the_containers() -> None:
    spec = spec_of("cpu", LABS_MEMORY="8g", LABS_CPUS="2.5", LABS_SHM="2g")
    pod = pod_of(documents(spec))
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "2.5", "memory": str(8 * 2**30)}
    assert pod["volumes"][-1]["emptyDir"]["sizeLimit"] == str(2 * 2**30)


def test_a_network_is_allowed_only_if_the_run_may_use_it() -> None:
    assert len(documents(spec_of("cpu", LABS_NETWORK="bridge"))) == 1


# a value of each setting that differs from compose.yaml's
OTHERS: dict[str, Any] = {
    "image": "another",
    "user": "7:8",
    "network_mode": "host",
    "network_options": {"a": "b"},
    "ports": (Port("127.0.0.1", 1, 1),),
    "dns": ("127.0.0.1",),
    "init": False,
    "read_only": False,
    "cap_drop": (),
    "security_opt": ("apparmor=unconfined",),
    "tmpfs": ("/tmp:mode=1777",),
    "shm_size": 1,
    "mem_limit": 1,
    "cpus": 0.5,
    "cpuset": "0",
    "cgroup_parent": "a",
    "ulimits": (("memlock", -1, -1),),
    "binds": (Bind("/data", "/data"),),
    "groups": ("7",),
    "runtime": "amd",
    "environment": {"A": "b"},
    "command": ("--x",),
}
# The device plugin attaches the GPUs, the launcher alone uses labels and standard input, and the
# manifest's header names the limit of processes. A pod gets no swap.
ELSEWHERE = {"devices", "requests", "labels", "reads_input", "pids_limit", "memswap_limit"}


def test_every_setting_of_a_container_is_known() -> None:
    assert {field.name for field in fields(ContainerSpec)} == OTHERS.keys() | ELSEWHERE
    assert "podPidsLimit" in (FOLDER / kubernetes_job.TEMPLATE).read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", OTHERS)
def test_no_setting_is_dropped_silently(setting: str) -> None:
    spec = spec_of("cpu")
    changed = replace(spec, **{setting: OTHERS[setting]})
    try:
        assert documents(changed) != documents(spec)
    except Card as card:
        assert "A Kubernetes Job can't express" in str(card)


def test_the_printed_manifest_is_what_a_cluster_reads() -> None:
    words = ["manifest", "LLM10+", "--stack", "cuda", "--gpus", "2", "--image", "r/labs:1"]
    ended = subprocess.run(
        [str(BIN / "invoke"), *words, "--claim", "mine", "--", "--steps", "20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    job, policy = yaml.safe_load_all(ended.stdout)
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    assert job["metadata"]["name"] == policy["metadata"]["name"] == "llm10-plus"
    (container,) = pod_of([job])["containers"]
    assert container["image"] == "r/labs:1"
    assert container["args"] == ["LLM10+", "--processes", "2", "--", "--steps", "20"]
    assert pod_of([job])["volumes"][0]["persistentVolumeClaim"] == {"claimName": "mine"}


@pytest.mark.parametrize("uid", [0, 1234])
def test_a_job_as_root_is_written_with_a_warning(
    uid: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kubernetes_job, "file_owner", lambda: Owner(uid, uid))
    kubernetes_job.write(LAB, "cpu", "", "", "llm-labs")
    printed = capsys.readouterr()
    assert f"runAsUser: {uid}\n" in printed.out
    assert ("runs as root (runAsUser: 0)" in printed.err) == (uid == 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--stack", "tpu"), "--stack can't be 'tpu'"),
        (("--gpus", "2"), "The cpu stack uses no GPU."),
        (("--claim", "Bad Claim"), "--claim can't be 'Bad Claim'"),
        (("--stack", "cuda", "--gpus", "all"), "--gpus all isn't possible"),
        (("--stack", "cuda", "--gpus", "0"), "--gpus 0 isn't possible"),
        (("--stack", "rocm"), "LABS_GFX isn't set"),
        (("--size", "huge"), "fix: invoke manifest --help"),
    ],
)
def test_what_a_cluster_cant_do_is_a_card(words: tuple[str, ...], said: str) -> None:
    command = [str(BIN / "invoke"), "manifest", "LLM10", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert said in ended.stderr
    assert ended.stdout == ""


def test_devices_of_a_request_are_not_the_plugins() -> None:
    asked = replace(spec_of("cuda"), requests=(GpuRequest("nvidia", ("GPU-1",)),))
    assert documents(asked, "cuda", 1) == documents(spec_of("cuda"), "cuda", 1)
