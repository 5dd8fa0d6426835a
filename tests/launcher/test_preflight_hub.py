"""What `invoke preflight` finds about a hub, from its hub.toml."""

import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.cards import Card
from launcher.engine.compose import seat_service
from launcher.engine.container_spec import ContainerSpec
from launcher.hub import address as hub_address
from launcher.hub import certificate
from launcher.hub import folder as hub_folder
from launcher.hub import gpus as hub_gpus
from launcher.hub import settings as hub_settings
from launcher.hub.gpus import HubGpus
from launcher.preflight import checks as preflight_checks
from launcher.preflight import hub as preflight_hub
from launcher.preflight.findings import FIX, NOTE, OK
from launcher.run import service as lab_service
from launcher.run.runtime import Runtime

import pytest

GOOD = 'password = "a-shared-word"\nteacher_password = "the-teacher-s-long-word"\n'
GB = 10**9
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# `openssl ca` writes certificates with any dates.
AUTHORITY = """
[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
private_key = {key}
default_md = sha256
rand_serial = yes
policy = any
[any]
commonName = supplied
"""
CUT = "-----BEGIN CERTIFICATE-----\nMIIDBTCCAe2gAwIB\n-----END CERTIFICATE-----"


def settings(folder: Path, more: str = "") -> hub_settings.HubSettings:
    (folder / "hub.toml").write_text(GOOD + more)
    return hub_settings.read(folder)


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_without_hub_toml_only_a_taken_port_is_worth_knowing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    text = hub_folder.new_settings()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for port, found in ((free, []), (taken, [(NOTE, "ss -ltnp")])):
        new = text.replace("port = 8000", f"port = {port}")
        monkeypatch.setattr(hub_folder, "new_settings", lambda new=new: new)
        findings = preflight_hub.findings(None, tmp_path)
        assert [(finding.state, finding.fix) for finding in findings] == found


def test_a_wrong_line_or_a_missing_engine_is_the_only_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    (finding,) = preflight_hub.findings(Runtime(None, ""), tmp_path)
    assert (finding.state, finding.fix) == (FIX, "start that engine, or: unset DOCKER_HOST")
    assert "DOCKER_HOST is unix:///nonexistent" in finding.value
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
    for seats, mode, state in ((1, 0o644, FIX), (2, 0o644, NOTE), (2, 0o600, OK)):
        (tmp_path / "users.csv").chmod(mode)
        (tmp_path / "hub.toml").write_text(f"{text}{seats}\n")
        finding = preflight_hub.users(hub_settings.read(tmp_path), tmp_path)
        assert finding.state == state and "2 learners in users.csv" in finding.value
        assert state != NOTE or finding.fix.startswith("chmod 600")
    (tmp_path / "users.csv").write_text("ada\n")
    finding = preflight_hub.users(hub_settings.read(tmp_path), tmp_path)
    assert finding.state == FIX and "Line 1" in finding.value


@pytest.mark.parametrize(("count", "state"), [(1, NOTE), (3, OK)])
def test_learners_who_would_wait_for_a_gpu_are_worth_knowing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, state: str
) -> None:
    described = HubGpus("rocm", (), "auto", 1, 1)
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
    finding = preflight_hub.port(settings(tmp_path, 'address = "192.0.2.7"\n'), set())
    assert finding.state == FIX and "can't listen on 192.0.2.7:8000" in finding.value


def test_the_hub_refuses_a_port_before_its_engine_ends_the_running_hub(
    tmp_path: Path, taken: int
) -> None:
    hub = settings(tmp_path, f"port = {taken}\n")
    with pytest.raises(Card, match=f"Port {taken} is taken"):
        hub_address.refuse_unusable(hub, set())
    with pytest.raises(Card, match=f"Port {taken} is taken"):
        hub_address.refuse_unusable(hub, {taken + 1})
    hub_address.refuse_unusable(hub, {taken})  # the running hub has it
    with pytest.raises(Card, match=r"doesn't have the address 192\.0\.2\.7"):
        hub_address.refuse_unusable(settings(tmp_path, 'address = "192.0.2.7"\n'), set())


def test_seats_of_preflight_run_in_the_image_of_the_hub_if_there_is_a_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    placement: Any = SimpleNamespace(stack="cpu")
    engine: Any = object()
    monkeypatch.setattr(lab_service, "resolve", lambda name, *_: {"image": name})
    monkeypatch.setattr(preflight_hub, "name_to_run", lambda _, service: service["image"])
    monkeypatch.setattr(preflight_hub, "why_build", lambda *_: "")
    assert preflight_hub.image_for_seats(engine, placement, tmp_path) == ""
    settings(tmp_path)
    assert preflight_hub.image_for_seats(engine, placement, tmp_path) == seat_service("cpu")
    monkeypatch.setattr(preflight_hub, "why_build", lambda *_: "it doesn't exist yet")
    assert preflight_hub.image_for_seats(engine, placement, tmp_path) == ""


def key_pair(folder: Path, name: str, begin: timedelta = -DAY, end: timedelta = 90 * DAY) -> None:
    """Write a certificate and its key; `begin` and `end` count from now."""
    now = datetime.now(UTC)
    dates = [f"{now + delta:%Y%m%d%H%M%SZ}" for delta in (begin, end)]
    key = folder / f"{name}.key"
    (folder / "authority.conf").write_text(AUTHORITY.format(folder=folder, key=key))
    for file in ("index", "index.attr"):
        (folder / file).write_text("")
    request = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hub", "-keyout", str(key)]
    sign = ["ca", "-batch", "-selfsign", "-config", f"{folder}/authority.conf"]
    files = ["-in", f"{folder}/request", "-notext", "-out", f"{folder}/{name}.pem"]
    openssl(*request, "-out", f"{folder}/request")
    openssl(*sign, *files, "-startdate", dates[0], "-enddate", dates[1])


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def find_https(folder: Path, key: str = "one.key") -> Any:
    lines = f'certificate = "one.pem"\nkey = "{key}"\n'
    return preflight_hub.https(settings(folder, lines), folder)


def test_a_certificate_needs_its_own_key_without_a_password(tmp_path: Path) -> None:
    key_pair(tmp_path, "one")
    key_pair(tmp_path, "two")
    files = ["-in", f"{tmp_path}/one.key", "-out", f"{tmp_path}/locked.key"]
    openssl("rsa", "-aes128", "-passout", "pass:secret", *files)
    openssl(
        "rsa",
        "-traditional",
        "-aes128",
        "-passout",
        "pass:secret",
        *files[:3],
        f"{tmp_path}/old.key",
    )
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("genpkey", *curve, "-out", f"{tmp_path}/curve.key")
    (tmp_path / "text.key").write_text("no key")
    assert find_https(tmp_path).state == OK
    reasons = {
        "two.key": "two.key doesn't belong to one.pem.",
        "curve.key": "curve.key doesn't belong to one.pem.",
        "locked.key": "locked.key has a password, which the hub can't enter.",
        "old.key": "old.key has a password, which the hub can't enter.",
        "text.key": "text.key isn't a PEM key: no -----BEGIN PRIVATE KEY----- is in it.",
    }
    for key, reason in reasons.items():
        finding = find_https(tmp_path, key)
        assert finding.state == FIX and finding.value.endswith(reason)


def test_a_key_in_place_of_the_certificate_is_named(tmp_path: Path) -> None:
    key_pair(tmp_path, "one")
    with pytest.raises(Card) as raised:
        certificate.refuse_no_pair(tmp_path / "one.key", tmp_path / "one.pem")
    assert raised.value.why.startswith("one.key isn't a PEM certificate")


def test_the_hub_isn_t_started_with_the_key_of_another_certificate(tmp_path: Path) -> None:
    key_pair(tmp_path, "one")
    key_pair(tmp_path, "two")
    lines = 'certificate = "one.pem"\nkey = "{}.key"\n'
    spec = ContainerSpec("", "")
    hub = settings(tmp_path, lines.format("one"))
    assert hub_folder.describe(tmp_path, hub, spec).pem.keys() == {"certificate", "key"}
    hub = settings(tmp_path, lines.format("two"))
    with pytest.raises(Card, match=r"one\.pem and two\.key can't be used for HTTPS"):
        hub_folder.describe(tmp_path, hub, spec)


@pytest.mark.parametrize(
    ("begin", "end", "state", "text"),
    [
        (-DAY, 15 * DAY, OK, "fit together, valid until"),
        (-DAY, 13 * DAY + HOUR, NOTE, "13 days to renew it"),
        (-2 * DAY, -HOUR, FIX, "expired on"),
        (HOUR, 90 * DAY, FIX, "isn't valid before"),
    ],
)
def test_a_certificate_needs_to_be_valid_for_two_weeks(
    tmp_path: Path, begin: timedelta, end: timedelta, state: str, text: str
) -> None:
    key_pair(tmp_path, "one", begin, end)
    finding = find_https(tmp_path)
    assert finding.state == state and text in finding.value
    shown = begin if begin > -HOUR else end
    assert f"{datetime.now(UTC) + shown:%Y-%m-%d}" in finding.value
    assert ("renew one.pem" in finding.fix) == (state != OK)


def test_a_chain_after_2049_is_read_at_its_first_certificate(tmp_path: Path) -> None:
    key_pair(tmp_path, "authority")
    key_pair(tmp_path, "one", end=40 * 365 * DAY)
    text = (tmp_path / "one.pem").read_text()
    (tmp_path / "one.pem").write_text(
        f"subject=hub\n{text}{(tmp_path / 'authority.pem').read_text()}"
    )
    finding = find_https(tmp_path)
    year = (datetime.now(UTC) + 40 * 365 * DAY).year
    assert finding.state == OK and f"valid until {year}-" in finding.value


def test_dates_that_openssl_can_not_read_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cut.pem").write_text(CUT)
    with pytest.raises(ValueError, match="certificate"):
        certificate.validity(tmp_path / "cut.pem")
    key_pair(tmp_path, "one")
    monkeypatch.setenv("PATH", "")
    finding = find_https(tmp_path)
    assert finding.state == FIX and "openssl isn't installed" in finding.value


def test_missing_and_old_images_of_the_hub_are_to_be_fixed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def resolve(name: str, *_: object) -> Any:
        asked.append(name)
        return {"image": "llm-labs:cpu-hub"}

    monkeypatch.setattr(hub_gpus, "place", lambda *_: SimpleNamespace(stack="cpu"))
    monkeypatch.setattr(lab_service, "resolve", resolve)
    runtime: Any = SimpleNamespace(engine=object())
    hub = settings(tmp_path)
    for reason, state in (("it doesn't exist yet", FIX), ("", OK)):
        monkeypatch.setattr(preflight_hub, "why_build", lambda *_, reason=reason: reason)
        finding = preflight_hub.image(hub, runtime)
        assert finding.state == state
        assert finding.value == f"llm-labs:cpu-hub: {reason or 'up to date'}"
        assert ("invoke hub" in finding.fix) == (state == FIX)
    assert set(asked) == {seat_service("cpu")}
