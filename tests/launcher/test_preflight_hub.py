"""What `invoke preflight` finds about a hub, from its hub.toml."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launcher import hub_gpus, hub_settings, preflight_checks, preflight_hub
from launcher.cards import Card
from launcher.findings import FIX, NOTE, OK
from launcher.hub_gpus import HubGpus
from launcher.runtime import Runtime

import pytest

GOOD = 'password = "a-shared-word"\nteacher_password = "the-teacher-s-long-word"\n'
GB = 10**9


def settings(folder: Path, more: str = "") -> hub_settings.HubSettings:
    (folder / "hub.toml").write_text(GOOD + more)
    return hub_settings.read(folder)


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_without_hub_toml_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert list(preflight_hub.findings(None, tmp_path)) == []


def test_a_wrong_line_or_a_missing_engine_is_the_only_finding(tmp_path: Path) -> None:
    settings(tmp_path)
    (finding,) = preflight_hub.findings(Runtime(None, ""), tmp_path)
    assert (finding.state, finding.fix) == (FIX, "docker info")
    (tmp_path / "hub.toml").write_text(f'{GOOD}seats = "many"')
    (finding,) = preflight_hub.findings(None, tmp_path)
    assert finding.state == FIX and "Line 3 sets seats" in finding.value


@pytest.mark.parametrize(
    ("available", "state", "text"),
    [
        (20, OK, "30 seats take 4.5 GB when idle; 6 labs can run beside them"),
        (6, FIX, "too much beside a lab, 6.0 GB are available"),
        (2, FIX, "2.0 GB are available"),
    ],
)
def test_seats_are_compared_with_the_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, available: int, state: str, text: str
) -> None:
    monkeypatch.setattr(preflight_checks, "read_memory", lambda: (24 * GB, available * GB))
    finding = preflight_hub.seats(settings(tmp_path))
    assert finding.state == state and text in finding.value
    fix = {20: "", 6: "seats = 23", 2: "free -h, then end programs that aren't needed"}[available]
    assert finding.fix.endswith(fix)


def test_more_learners_than_seats_are_to_be_fixed(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("ada,a-long-word\nben,another-word\n")
    text = GOOD.partition("\n")[2] + 'users = "users.csv"\nseats = '
    for seats, state in ((1, FIX), (2, OK)):
        (tmp_path / "hub.toml").write_text(f"{text}{seats}\n")
        finding = preflight_hub.users(hub_settings.read(tmp_path), tmp_path)
        assert finding.state == state and "2 learners in users.csv" in finding.value
    (tmp_path / "users.csv").write_text("ada\n")
    finding = preflight_hub.users(hub_settings.read(tmp_path), tmp_path)
    assert finding.state == FIX and "Line 1" in finding.value


@pytest.mark.parametrize(("count", "state"), [(1, NOTE), (3, OK)])
def test_learners_who_would_wait_for_a_gpu_are_worth_knowing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, state: str
) -> None:
    described = HubGpus("rocm", (), "auto", 1, 1, 1)
    monkeypatch.setattr(hub_gpus, "place", lambda *_: None)
    monkeypatch.setattr(hub_gpus, "describe", lambda *_: described)
    monkeypatch.setattr(HubGpus, "seats", count)
    runtime: Any = SimpleNamespace(engine=object())
    finding = preflight_hub.gpus(settings(tmp_path, "gpus = 1\nseats = 3\n"), runtime)
    assert finding.state == state and f"enough for {count} of 3 seats at once" in finding.value


def test_missing_gpus_are_the_card_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise Card("hub.toml asks for 1 GPU for each seat.", "No GPU can be used here.", "gpus = 0")

    monkeypatch.setattr(hub_gpus, "place", refuse)
    runtime: Any = SimpleNamespace(engine=object())
    finding = preflight_hub.gpus(settings(tmp_path, "gpus = 1\n"), runtime)
    assert (finding.state, finding.fix) == (FIX, "gpus = 0")


def test_a_taken_port_is_to_be_fixed_unless_the_hub_itself_has_it(
    tmp_path: Path, taken: int
) -> None:
    hub = settings(tmp_path, f"port = {taken}\n")
    finding = preflight_hub.port(hub, set())
    assert finding.state == FIX and f"another program listens on 127.0.0.1:{taken}" in finding.value
    assert f"port = {taken + 1}" in finding.fix
    finding = preflight_hub.port(hub, {taken})
    assert (finding.state, finding.value) == (OK, f"the hub runs on 127.0.0.1:{taken}")


def test_a_free_port_is_fine_and_an_address_of_another_machine_isn_t(
    tmp_path: Path, taken: int
) -> None:
    del taken
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert preflight_hub.port(settings(tmp_path, f"port = {free}\n"), set()).state == OK
    for address in ("192.0.2.7", "no such host"):
        finding = preflight_hub.port(settings(tmp_path, f'address = "{address}"\n'), set())
        assert finding.state == FIX and f"can't listen on {address}:8000" in finding.value


def key_pair(folder: Path, name: str) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hub"]
    files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
    subprocess.run([*words, *files], check=True, capture_output=True)


def test_a_certificate_needs_its_own_key_without_a_password(tmp_path: Path) -> None:
    key_pair(tmp_path, "one")
    key_pair(tmp_path, "two")
    words = ["openssl", "rsa", "-aes128", "-passout", "pass:secret", "-in", tmp_path / "one.key"]
    subprocess.run([*words, "-out", tmp_path / "locked.key"], check=True, capture_output=True)
    (tmp_path / "text.key").write_text("no key")

    def find(key: str) -> Any:
        lines = f'certificate = "one.pem"\nkey = "{key}"\n'
        return preflight_hub.https(settings(tmp_path, lines), tmp_path)

    assert find("one.key").state == OK
    for key in ("two.key", "locked.key", "text.key"):
        finding = find(key)
        assert finding.state == FIX and f"one.pem and {key} are no pair" in finding.value
