"""`invoke hub --stop` and `--purge`: only the work that is named goes; and how seats start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launcher import hub_api, hub_stop
from launcher.cards import Card

import pytest


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a workshop with two learners and an archive; no engine is asked."""
    for name in ("ada", "ben"):
        (tmp_path / "learners" / name / "work").mkdir(parents=True)
        (tmp_path / "learners" / name / "work" / "sheet.py").write_text("1")
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "class-1.tar.gz").write_text("1")
    (tmp_path / "state").mkdir()
    (tmp_path / "hub.toml").write_text("")
    monkeypatch.setattr(hub_stop, "WORKSHOP", tmp_path)

    class Runtime:
        engine = "an engine"

    monkeypatch.setattr(hub_stop, "choose_runtime", lambda _: Runtime())
    monkeypatch.setattr(hub_stop, "_end", lambda _: 0)
    return tmp_path


def left(workshop: Path) -> set[str]:
    learners = {path.name for path in (workshop / "learners").iterdir()}
    return learners | {path.name for path in (workshop / "archives").iterdir()}


def test_a_purge_without_names_removes_no_work(workshop: Path, capsys: Any) -> None:
    assert hub_stop.purge("", dry=False) == 0
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert not (workshop / "state").exists()
    assert (workshop / "hub.toml").exists()
    told = capsys.readouterr()
    assert "learners/ada" in told.out
    assert "--purge class-1.tar.gz,ada" in told.err


def test_a_purge_removes_what_is_named(workshop: Path) -> None:
    assert hub_stop.purge("ada,class-1.tar.gz", dry=False) == 0
    assert left(workshop) == {"ben"}


def test_all_stands_for_all_work(workshop: Path) -> None:
    assert hub_stop.purge("all", dry=False) == 0
    assert left(workshop) == set()


@pytest.mark.parametrize("name", ["nobody", "..", "../..", "ada/work", "/", "hub.toml", "Ada"])
def test_a_name_that_isn_t_there_removes_nothing(workshop: Path, name: str) -> None:
    with pytest.raises(Card, match=r"can't be purged"):
        hub_stop.purge(f"ada,{name}", dry=False)
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert (workshop / "state").exists()


def test_dry_commands_are_printed_and_nothing_is_removed(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seats = ([SimpleNamespace(name="seat-ada")], [SimpleNamespace(name="net-ada")])
    monkeypatch.setattr(hub_stop, "_seats_and_networks", lambda _: seats)
    assert hub_stop.purge("ada", dry=True) == 0
    down, *lines = capsys.readouterr().out.splitlines()
    assert down.endswith("down --timeout=10")
    assert lines == [
        "docker rm --force seat-ada",
        "docker network rm net-ada",
        f"rm -r {workshop}/state",
        f"rm -r {workshop}/learners/ada",
    ]
    assert hub_stop.stop(dry=True) == 0
    assert capsys.readouterr().out.splitlines() == [down, *lines[:2]]
    assert left(workshop) == {"ada", "ben", "class-1.tar.gz"}
    assert (workshop / "state").exists()


class Hub:
    """A hub that starts each seat at the second question about it, and refuses `full`."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.most = 0

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        del body
        name = path.split("/")[2]
        if path.endswith("/server"):
            if name == "full":
                return 429, '{"message": "all seats are taken"}'
            self.asked[name] = 0
            return 202, None
        if method == "POST":
            return 201, {}
        self.asked[name] += 1
        self.most = max(self.most, sum(count < 2 for count in self.asked.values()))
        server = {"ready": self.asked[name] >= 2, "pending": "spawn"}
        if name == "broken":
            server = {"ready": False, "pending": None}
        return 200, {"servers": {"": server}}


def test_seats_start_a_few_at_once_and_each_end_is_reported() -> None:
    hub: Any = Hub()
    lines: list[str] = []
    names = ["a", "b", "full", "broken", "c"]
    result = hub_api.start_seats(hub, names, 2, lines.append)
    assert set(result.ready) == {"a", "b", "c"}
    assert result.failed["full"] == "all seats are taken"
    assert "didn't start" in result.failed["broken"]
    assert len(lines) == len(names)
    assert hub.most <= 2
