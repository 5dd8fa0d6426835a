"""Packages get into an environment by uv with pip's configuration, or by pip; with hashes."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from common.cards import Card
from launcher.environment import installer
from launcher.environment.installer import Installer, choose_installer
from launcher.environment.pip_settings import uv_settings
from launcher.image.build import run_build
from tests.conftest import Running
from tests.docker.test_build import wheel

import pytest

# The tests' own configuration of pip, which names this machine's wheels, and uv's.
VARIABLES = ("FIND_LINKS", "CONSTRAINT", "INDEX_URL", "EXTRA_INDEX_URL", "CONFIG_FILE", "NO_INDEX")


@pytest.fixture(autouse=True)
def configuration(monkeypatch, tmp_path: Path) -> Path:
    """Return the pip.conf that pip and uv get, and nothing else."""
    for name in VARIABLES:
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    for name in ("LABS_WHEELS", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    file = tmp_path / "pip.conf"
    file.write_text("")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    return file


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch) -> Path:
    """Return a folder with one wheel, which the lock demands."""
    folder = tmp_path / "wheels"
    digest = wheel(folder, "honest = True")
    lock = tmp_path / installer.LOCK
    lock.write_text(f"labs-tamper-test==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(installer, "DOCKER_FOLDER", tmp_path)
    return folder


@pytest.fixture
def chosen(tmp_path: Path, wheels: Path) -> Callable[[], Installer]:
    del wheels
    return lambda: choose_installer(tmp_path / "venv", tmp_path / "cache")


def install(chosen: Callable[[], Installer], tmp_path: Path) -> list[str]:
    """Install the lock; return the modules that are in the environment then."""
    tool = chosen()
    steps = [*tool.create(), tool.install_lock()]
    run_build("It failed.", steps)
    return installed(tmp_path)


def installed(tmp_path: Path) -> list[str]:
    return [path.stem for path in tmp_path.glob("venv/lib/*/site-packages/labs_*.py")]


def test_wheels_on_disk_are_installed(
    chosen, wheels: Path, tmp_path: Path, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("LABS_WHEELS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert install(chosen, tmp_path) == ["labs_tamper_test"]
    shown = capfd.readouterr().err
    assert "  1 packages, each verified by its hash\n" in shown
    assert "Installed 1 package" in shown
    assert list(tmp_path.glob("venv/lib/*/site-packages/pip-*")), "an environment has pip"


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_a_tampered_wheel_is_refused(
    chosen, wheels: Path, tmp_path: Path, tool: str, monkeypatch
) -> None:
    if tool == "pip":
        monkeypatch.setattr(installer, "_find_uv", lambda: "")
    monkeypatch.setenv("LABS_WHEELS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheel(wheels, "honest = None")
    with pytest.raises(Card) as caught:
        install(chosen, tmp_path)
    assert caught.value.what == "A package differs from the one in the lock."
    assert installed(tmp_path) == []


@pytest.fixture
def index(wheels: Path) -> Iterator[str]:
    """Serve the wheel as a package index; yield its URL."""
    package = wheels / "simple" / "labs-tamper-test"
    package.mkdir(parents=True)
    (wheels / "simple" / "empty").mkdir()
    (file,) = wheels.glob("*.whl")
    file.rename(package / file.name)
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with Running(command, cwd=wheels) as server:
        server.wait_for("port ")
        yield f"http://127.0.0.1:{server.text.split('port ')[1].split()[0]}/simple"


@pytest.mark.parametrize("option", ["index-url", "extra-index-url"])
def test_the_index_of_pip_conf_is_used(
    chosen, index: str, configuration: Path, tmp_path: Path, option: str
) -> None:
    main = "" if option == "index-url" else f"index-url = {index}/empty\n"
    configuration.write_text(f"[global]\n{main}{option} = {index}\n")
    assert install(chosen, tmp_path) == ["labs_tamper_test"]


def test_an_unreachable_index_is_a_card(chosen, tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(Card) as caught:
        install(chosen, tmp_path)
    assert caught.value.what == "A download for the build failed."
    shown = capfd.readouterr().err
    assert "127.0.0.1:9" in shown and "secret" not in shown
    assert "secret" not in " ".join(chosen().install_lock().words)


def test_pip_installs_where_it_is_configured_in_a_way_that_uv_cannot_follow(
    chosen, configuration: Path
) -> None:
    configuration.write_text("[install]\nkeyring-provider = import\n[download]\nplatform = any\n")
    assert chosen().why_pip == "pip's configuration sets keyring-provider, which uv can't follow"
    assert chosen().install_lock().command[1:4] == ["-m", "pip", "install"]


def test_pip_installs_the_torch_of_rocm(chosen) -> None:
    torch = chosen().install_torch("rocm", "gfx942").command
    assert torch[1:4] == ["-m", "pip", "install"]
    assert "--no-build-isolation" in torch


def test_every_setting_of_pip_reaches_uv(configuration: Path, monkeypatch) -> None:
    configuration.write_text(
        "[global]\ncert = /ca.pem\nproxy = http://proxy:3128\ntrusted-host = a b\ntimeout = 9\n"
        "index-url = https://global\nconstraint = c.txt\n[install]\nindex-url = https://install\n"
    )
    monkeypatch.setenv("PIP_CERT", "/other.pem")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "9")
    settings = uv_settings()
    assert settings.variables == {
        "UV_SYSTEM_CERTS": "true",
        "UV_DEFAULT_INDEX": "https://install",
        "SSL_CERT_FILE": "/other.pem",
        "ALL_PROXY": "http://proxy:3128",
        "UV_HTTP_TIMEOUT": "9",
    }
    assert settings.options == ("--allow-insecure-host", "a", "--allow-insecure-host", "b")
    assert settings.constraints == ("--constraints", "c.txt")
    assert settings.unknown == ()


def test_hashed_packages_get_no_constraints_and_an_own_index_replaces_the_default(
    chosen, monkeypatch
) -> None:
    monkeypatch.setenv("PIP_CONSTRAINT", "c.txt")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    words = ["--no-deps", "--index-url", "https://torch"]
    monkeypatch.setattr(installer.torch_source, "cpu_source", lambda: words)
    lock = chosen().install_lock()
    torch = chosen().install_torch("cpu", "")
    assert "--constraints" not in lock.command
    assert lock.variables["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert "--constraints" in torch.command
    assert "UV_DEFAULT_INDEX" not in torch.variables


def test_a_cache_that_others_use_is_copied_from(chosen, monkeypatch) -> None:
    """A link would carry damage of an environment into it."""
    assert "--link-mode=hardlink" in chosen().install_lock().command
    monkeypatch.setenv("UV_CACHE_DIR", "/shared")
    assert "--link-mode=copy" in chosen().install_lock().command
    assert "--cache-dir" not in chosen().install_lock().command
