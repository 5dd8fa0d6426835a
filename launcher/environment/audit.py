"""Check the locks for known vulnerabilities: pip-audit asks a service on the internet."""

import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

from common.cards import Card, print_status
from common.processes import capture
from launcher.environment.locks import LOCKS

# The locks are complete and have hashes, so that nothing must be downloaded or resolved.
OPTIONS = ("--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off")
ELSEWHERE = "invoke audit, where pip's default index can be reached; most mirrors can't be asked"


def audit_locks() -> int:
    """Print the known vulnerabilities of all locked packages, and return 1 if there are any.

    Raises:
        Card: If pip-audit is missing, or no service knows any of the packages.
    """
    command = [_find_pip_audit(), *OPTIONS]
    command += [f"--requirement={lock.path}" for lock in LOCKS]
    result = capture(command, stderr=PIPE)
    try:
        packages = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        lines = result.stderr.strip().splitlines() or ["pip-audit printed no result."]
        raise Card("The locks couldn't be audited.", lines[-1], ELSEWHERE) from error
    return report(packages)


def report(packages: list[dict[str, Any]]) -> int:
    """Print pip-audit's result, and return 1 if a package has a known vulnerability.

    Raises:
        Card: If it could check none of the packages.
    """
    skipped = [package for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        reason = skipped[0]["skip_reason"] if skipped else "pip-audit names no package."
        raise Card("No package could be audited.", f"The service's answer: {reason}.", ELSEWHERE)
    found = 0
    for package in packages:
        for vulnerability in package.get("vulns", []):
            found += 1
            fixed = ", ".join(vulnerability["fix_versions"]) or "no release yet"
            name = f"{package['name']} {package['version']}"
            print(f"{name}: {vulnerability['id']}, fixed in {fixed}")
    checked = len(packages) - len(skipped)
    print_status(f"{found} known vulnerabilities in {checked} packages.")
    for package in skipped:
        print_status(f"not checked: {package['name']} ({package['skip_reason']})")
    return 1 if found else 0


def _find_pip_audit() -> str:
    """Return the path of pip-audit: beside this Python, else on PATH."""
    folder = Path(sys.executable).parent
    tool = shutil.which("pip-audit", path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
    if tool is None:
        why = "It compares the locks with the published vulnerabilities."
        raise Card("pip-audit is missing.", why, f"{folder}/pip install pip-audit")
    return tool
