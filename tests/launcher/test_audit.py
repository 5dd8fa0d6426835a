"""`invoke audit`: what pip-audit prints, and what the launcher makes of it."""

import json
import sys
from pathlib import Path

from common.cards import Card
from launcher.environment import audit

import pytest

VULNERABLE = {
    "name": "a",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
}
SOUND = {"name": "b", "version": "2.0", "vulns": []}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a stand-in for pip-audit; it prints the file `output` beside it and its arguments."""
    script = tmp_path / "pip-audit"
    lines = [f"#!{sys.executable}", "import pathlib, sys", "here = pathlib.Path(__file__).parent"]
    lines += ["(here / 'arguments').write_text('\\n'.join(sys.argv[1:]))"]
    lines += ["print((here / 'output').read_text())", "print('its last line', file=sys.stderr)"]
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    monkeypatch.setattr(audit.sys, "executable", str(tmp_path / "python"))
    return tmp_path


def prints(tool: Path, *packages: dict[str, object]) -> None:
    (tool / "output").write_text(json.dumps({"dependencies": packages, "fixes": []}))


def test_a_vulnerability_is_named_with_its_fix(
    tool: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prints(tool, VULNERABLE, SOUND, UNKNOWN)
    assert audit.audit_locks() == 1
    shown = capfd.readouterr()
    assert shown.out == "a 1.0: PYSEC-1, fixed in 1.1\n"
    assert "1 known vulnerabilities in 2 packages" in shown.err
    assert "not checked: c (not found)" in shown.err


def test_every_lock_is_audited_without_a_download(tool: Path) -> None:
    prints(tool, SOUND)
    assert audit.audit_locks() == 0
    arguments = (tool / "arguments").read_text().splitlines()
    assert {"--disable-pip", "--require-hashes"} <= set(arguments)
    asked = {Path(word.partition("=")[2]).name for word in arguments if "requirement=" in word}
    assert asked == {lock.name for lock in audit.LOCKS}


def test_a_service_that_knows_no_package_is_no_clean_result(tool: Path) -> None:
    prints(tool, UNKNOWN)
    with pytest.raises(Card, match="No package could be audited") as caught:
        audit.audit_locks()
    assert caught.value.code == 3


def test_a_failed_audit_shows_the_last_line(tool: Path) -> None:
    (tool / "output").write_text("")
    with pytest.raises(Card) as caught:
        audit.audit_locks()
    assert caught.value.why == "its last line"


def test_without_pip_audit_a_card_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Card) as caught:
        audit.audit_locks()
    assert caught.value.fix == f"{tmp_path}/pip install pip-audit"
