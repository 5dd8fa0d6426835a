"""Seats: their container, networks, names and quota. No hub runs here."""

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from common import safe_files
from hub import learners, networks, seats, state
from hub.quota import Growth
from launcher.engine.container_spec import Bind, ContainerSpec, GpuRequest
from launcher.hub import folder as hub_folder
from launcher.hub import settings as hub_settings
from launcher.run.file_owner import Owner

import pytest

SPEC = ContainerSpec(
    image="llm-labs:cpu-hub",
    user="1000:1000",
    read_only=True,
    cap_drop=("ALL",),
    security_opt=("no-new-privileges:true",),
    tmpfs=("/tmp:size=1g",),
    pids_limit=4096,
    mem_limit=2**30,
    memswap_limit=2**30,
    cpus=1.5,
    binds=(Bind("/clone/labs", "/lab/labs", True),),
    requests=(GpuRequest("nvidia", ("0",)),),
    ulimits=(("nofile", 1, 2),),
    environment={"TZ": "UTC0"},
)


def test_a_seat_is_as_hardened_as_compose_yaml_says() -> None:
    config = seats.host_config(SPEC, learners.binds("/server", "ada"))
    assert config["read_only"] and config["cap_drop"] == ["ALL"]
    assert config["security_opt"] == ["no-new-privileges:true"]
    assert (config["pids_limit"], config["mem_limit"]) == (4096, 2**30)
    assert config["memswap_limit"] == 2**30
    assert config["log_config"]["Config"] == {"max-size": "10m", "max-file": "2"}
    assert config["cpu_quota"] == 1.5 * config["cpu_period"]
    assert "nano_cpus" not in config
    mounts = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in config["mounts"]}
    assert mounts == {
        "/lab/labs": ("/clone/labs", True),
        "/lab/work": ("/server/learners/ada/work", False),
        "/lab/outputs": ("/server/learners/ada/outputs", False),
        "/opt/labs/class": ("/server/class", True),
    }


def test_the_hub_reads_what_the_launcher_wrote(tmp_path: Path) -> None:
    owner = Owner(tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    hub_folder.prepare(tmp_path, owner)
    settings = hub_settings.read(tmp_path)
    written = hub_folder.describe(tmp_path, settings, SPEC)
    assert not (tmp_path / "state" / "hub.json").exists()
    hub_folder.write_state(tmp_path, written, owner)
    workshop = state.load(tmp_path)
    assert workshop.seat == SPEC
    assert workshop.settings == settings
    assert workshop.host_folder == str(tmp_path)
    description = tmp_path / "state" / "hub.json"
    assert description.stat().st_mode & 0o777 == 0o600
    again = hub_folder.describe(tmp_path, settings, SPEC)
    other = hub_folder.describe(tmp_path, replace(settings, seats=3), SPEC)
    assert again.digest == written.digest != other.digest
    assert json.loads(description.read_text())["seat"] == json.loads(json.dumps(asdict(SPEC)))


@pytest.mark.parametrize("name", ["../x", "A", "", "a/b", "zoë"])
def test_no_folder_is_made_for_a_name_that_isn_t_allowed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="isn't a learner's name"):
        learners.make_folders(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_learner_s_folders_are_made_once_and_kept(tmp_path: Path) -> None:
    learners.make_folders(tmp_path, "ada")
    (tmp_path / "learners" / "ada" / "work" / "sheet.py").write_text("1")
    learners.make_folders(tmp_path, "ada")
    assert learners.names(tmp_path) == ["ada"]
    assert (tmp_path / "learners" / "ada" / "work" / "sheet.py").read_text() == "1"
    assert learners.clean_name("  Ada ") == "ada"


def test_each_subnet_is_given_once() -> None:
    taken = ["172.17.0.0/16", "198.18.0.0/29", "198.18.0.16/28", "fd00::/64"]
    assert networks.free_subnet(taken) == "198.18.0.8/29"
    assert networks.free_subnet([*taken, "198.18.0.8/29"]) == "198.18.0.32/29"
    with pytest.raises(RuntimeError):
        networks.free_subnet(["198.18.0.0/15"])


class Engine:
    """An engine with networks, as the SDK shows it."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.connected: list[tuple[str, str]] = []
        self.addresses: list[str] = []

    def networks(self, **_: Any) -> list[dict[str, Any]]:
        return self.made

    def create_network(self, name: str, **options: Any) -> None:
        self.made.append({"Name": name, "IPAM": options["ipam"], **options})

    def inspect_network(self, name: str) -> dict[str, Any]:
        (network,) = (one for one in self.made if one["Name"] == name)
        members = {c: {} for c, joined in self.connected if joined == name}
        return {**network, "Containers": members}

    def connect_container_to_network(
        self, container: str, network: str, ipv4_address: str, **_: Any
    ) -> None:
        self.connected.append((container, network))
        self.addresses.append(ipv4_address)


def test_seats_get_separate_networks_that_lead_nowhere_else() -> None:
    engine = Engine()
    hubs = [networks.create(engine, "1a2b3c", name, "hub0") for name in ("ada", "ben", "ada")]
    assert hubs == ["198.18.0.2", "198.18.0.10", "198.18.0.2"]
    assert engine.addresses == hubs[:2]
    names = [networks.seat_network("1a2b3c", name) for name in ("ada", "ben")]
    assert [network["Name"] for network in engine.made] == names
    assert all(network["internal"] for network in engine.made)
    assert all(network["options"] == networks.NO_ADDRESS for network in engine.made)
    configs = [network["IPAM"]["Config"][0] for network in engine.made]
    assert [one["IPRange"] for one in configs] == ["198.18.0.4/30", "198.18.0.12/30"]
    subnets = {one["Subnet"] for one in configs}
    assert len(subnets) == 2
    assert len(engine.connected) == 2, "the hub is connected once to each"


def test_a_new_container_of_the_hub_joins_the_seats_that_run() -> None:
    engine = Engine()
    known = networks.create(engine, "1a2b3c", "ada", "old")
    networks.connect_hub_to_all(engine, "1a2b3c", "new")
    assert engine.addresses == [known, known], "a seat knows only this address"
    assert ("new", networks.seat_network("1a2b3c", "ada")) in engine.connected


def test_only_a_learner_who_goes_on_writing_is_beyond_the_quota(tmp_path: Path) -> None:
    for name in ("ada", "ben"):
        learners.make_folders(tmp_path, name)
    mega = 2**20
    growth = Growth(quota=10 * mega)
    file = tmp_path / "learners" / "ada" / "outputs" / "large"

    def stopped_with(megabytes: int) -> list[str]:
        file.write_bytes(b"1" * megabytes * mega)
        return growth.too_much(tmp_path, ["ada", "ben"])

    assert stopped_with(20) == [], "the hub sees it for the first time"
    assert stopped_with(20) == [], "it doesn't grow"
    assert stopped_with(22) == [], "a note, or progress"
    assert stopped_with(24) == []
    assert stopped_with(26) == ["ada"], "also in small steps"
    assert growth.reason("ada").brief == "quota, 26 of 10 MB"
    assert stopped_with(28) == [], "it has just started again"
    assert stopped_with(20) == [], "the learner removes files"
    assert stopped_with(26) == ["ada"]


@pytest.mark.parametrize(
    ("number", "size_is_known"),
    [(errno.EACCES, False), (errno.EMFILE, False), (errno.ENOENT, True)],
)
def test_a_folder_that_its_owner_closed_counts_as_beyond_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, size_is_known: bool
) -> None:
    learners.make_folders(tmp_path, "ada")
    (tmp_path / "learners" / "ada" / "outputs" / "closed").mkdir()
    opened = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "closed":  # root, who may run the tests, would open it
            raise OSError(number, os.strerror(number))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    size = safe_files.size_of(tmp_path / "learners", "ada")
    assert (size is not None) == size_is_known
    expected = [] if size_is_known else ["ada"]
    assert Growth(quota=10**9).too_much(tmp_path, ["ada"]) == expected


def test_a_folder_that_a_learner_closed_once_is_opened_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners.make_folders(tmp_path, "ada")
    closed = tmp_path / "learners" / "ada" / "work" / "a" / "b"
    closed.mkdir(parents=True)
    (closed / "file").write_bytes(b"1" * 100_000)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o300)
    (closed.parent / "link").symlink_to(elsewhere)
    for folder in (closed, closed.parent, closed.parents[1]):
        folder.chmod(0o300)
    opened = os.open

    def as_owner(path: Any, flags: int, *arguments: Any, dir_fd: int | None = None) -> int:
        """Open as a user who isn't root, which the tests may be."""
        descriptor = opened(path, flags, *arguments, dir_fd=dir_fd)
        mode = os.fstat(descriptor).st_mode
        if not flags & os.O_PATH and not mode & 0o400:
            os.close(descriptor)
            raise PermissionError(errno.EACCES, "closed", path)
        return descriptor

    monkeypatch.setattr(os, "open", as_owner)
    assert safe_files.size_of(tmp_path / "learners", "ada") is None
    growth = Growth(quota=50_000)
    assert growth.too_much(tmp_path, ["ada"]) == []
    assert (growth.before["ada"] or 0) >= 100_000
    assert closed.stat().st_mode & 0o777 == 0o700
    assert elsewhere.stat().st_mode & 0o777 == 0o300, "a link isn't followed"


def test_a_link_to_a_closed_folder_or_a_pipe_s_place_doesn_t_stop_a_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners.make_folders(tmp_path, "ada")
    work = tmp_path / "learners" / "ada" / "work"
    (work / "swapped").mkdir()
    (work / "link").symlink_to("/")
    (work / "file").write_bytes(b"1" * 100_000)
    opened = os.open

    def swap(path: Any, flags: int, *arguments: Any, dir_fd: int | None = None) -> int:
        assert path != "link"
        if path == "swapped" and (work / path).is_dir():
            (work / path).rmdir()
            os.mkfifo(work / path)
        return opened(path, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    assert (safe_files.size_of(tmp_path / "learners", "ada") or 0) >= 100_000
    assert Growth(quota=10**9).too_much(tmp_path, ["ada"]) == []


def test_folders_that_are_too_deep_to_be_measured_are_not_ignored(tmp_path: Path) -> None:
    learners.make_folders(tmp_path, "ada")
    work = tmp_path / "learners" / "ada" / "work"
    work.joinpath(*["a"] * (safe_files.MOST_DEPTH - 5)).mkdir(parents=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert safe_files.size_of(tmp_path / "learners", "ada")
    work.joinpath(*["a"] * (safe_files.MOST_DEPTH + 5)).mkdir(parents=True)
    assert safe_files.size_of(tmp_path / "learners", "ada") is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before
