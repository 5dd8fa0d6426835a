"""The site's settings: where they are set, and the cards for values that aren't allowed."""

from pathlib import Path
from unittest.mock import MagicMock

from common.cards import Card
from launcher import settings
from launcher.engine.client import Engine
from launcher.run import service
from tests.conftest import Clone

import pytest


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a .env file; the shell sets none of the limits."""
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    for name in ("LABS_MEMORY", "LABS_CPUS", "LABS_SHM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("LABS_MEMORY=8g", "8g"),
        ("export LABS_MEMORY = 8g   # a comment", "8g"),
        ("LABS_MEMORY='8 g' # a comment", "8 g"),
        ('LABS_MEMORY="8g"', "8g"),
        ("LABS_MEMORY=1g\nLABS_MEMORY=8g", "8g"),
        ("LABS_MEMORY: 8g", "8g"),
    ],
)
def test_a_setting_is_read_from_the_env_file(env_file: Path, line: str, value: str) -> None:
    env_file.write_text(f"# LABS_MEMORY=2g\n{line}\nLABS_CPUS=\n")
    found = settings.find("LABS_MEMORY")
    assert found == settings.Setting("LABS_MEMORY", value, f"in {env_file}")
    assert settings.find("LABS_CPUS") is None, "an empty value means the default"


def test_the_shell_overrides_the_env_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("LABS_MEMORY=8g\n")
    monkeypatch.setenv("LABS_MEMORY", "1g")
    assert settings.find("LABS_MEMORY") == settings.Setting("LABS_MEMORY", "1g", "in the shell")
    monkeypatch.setenv("LABS_MEMORY", "")
    assert settings.find("LABS_MEMORY") is None


@pytest.mark.parametrize("value", ["viel", "-1", "1k", "8gg", "8,5g", "5m"])
def test_a_limit_that_is_no_size_or_too_small_is_a_card(env_file: Path, value: str) -> None:
    env_file.write_text(f"LABS_MEMORY={value}\n")
    with pytest.raises(Card) as refused:
        settings.refuse_invalid_sizes()
    assert refused.value.what == f"LABS_MEMORY={value} isn't possible."
    assert str(env_file) in refused.value.why
    assert "at least 6m, and 0 for no limit" in refused.value.why
    assert refused.value.code == 2


@pytest.mark.parametrize("value", ["0", "8g", "1.5G", "512 m", "8GiB", "6m", "7340032"])
def test_a_size_that_compose_accepts_is_accepted(env_file: Path, value: str) -> None:
    env_file.write_text(f"LABS_MEMORY={value}\n")
    settings.refuse_invalid_sizes()


@pytest.mark.parametrize("value", ["99", "viel", "-1", "nan", "0.001"])
def test_cpus_that_the_engine_lacks_are_a_card(env_file: Path, value: str) -> None:
    env_file.write_text(f"LABS_CPUS={value}\n")
    with pytest.raises(Card) as refused:
        settings.refuse_invalid_cpus(engine_cpus=2)
    assert "numbers from 0.01 to 2, the CPUs of this engine, and 0" in refused.value.why


@pytest.mark.parametrize("value", ["0", "2", "0.5"])
def test_cpus_that_the_engine_has_are_accepted(env_file: Path, value: str) -> None:
    env_file.write_text(f"LABS_CPUS={value}\n")
    settings.refuse_invalid_cpus(engine_cpus=2)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "value"), [("LABS_MEMORY", "viel"), ("LABS_MEMORY", "1k"), ("LABS_CPUS", "4096")]
)
def test_a_launch_refuses_an_invalid_limit(clone: Clone, name: str, value: str) -> None:
    lab = clone.bare_lab("print('ran')")
    ended = clone.invoke("lab", lab, "--runtime", "docker", **{name: value})
    assert ended.code == 2, ended
    assert f"what: {name}={value} isn't possible.\nwhy: It is set in the shell." in ended.err
    assert f"fix: {name}=" in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("setting", "memory", "limit"),
    [(None, 10 * 2**30, 8 * 2**30), ("0", 10 * 2**30, 0), ("4g", 2**30, 0), (None, 0, 0)],
)
def test_without_a_setting_a_container_gets_four_fifths_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, memory: int, limit: int
) -> None:
    monkeypatch.delenv("LABS_MEMORY", raising=False)
    if setting is not None:
        monkeypatch.setenv("LABS_MEMORY", setting)
    engine = Engine(MagicMock(), rootless=False, root_dir="", memory=memory)
    assert service.default_memory(engine) == limit
