"""Check the wheels of torch against their recorded hashes.

usage: python docker/check_torch.py REPORT HASHES OUT

REPORT is what pip installed (`pip install --report`). HASHES are the wheels that we have installed
and tested, with their SHA-256: the indexes of torch for CPU and ROCm can't be locked like pip's. A
wheel with the same name and another hash fails the build; one that isn't in HASHES, for another
Python for example, is only named. OUT gets the hashes of this build's wheels.
"""

import json
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit


def installed_wheels(report: dict) -> dict[str, str]:
    """Return the SHA-256 of each file that pip installed, by name."""
    wheels = {}
    for package in report["install"]:
        source = package["download_info"]
        name = unquote(urlsplit(source["url"]).path).rpartition("/")[2]
        archive = source["archive_info"]
        wheels[name] = archive.get("hashes", {}).get("sha256") or archive["hash"].split("=")[1]
    return dict(sorted(wheels.items()))


def check(wheels: dict[str, str], known: dict[str, str]) -> None:
    """Exit with a message if a wheel differs from the recorded one."""
    for name, digest in wheels.items():
        if known.get(name, digest) != digest:
            print(f"{name} has the SHA-256 {digest},", file=sys.stderr)
            print(f"but docker/torch-hashes.json has {known[name]}.", file=sys.stderr)
            sys.exit("check_torch: the file isn't the one that was tested: don't use it")
        if name not in known:
            print(f"check_torch: {name} isn't in docker/torch-hashes.json; its SHA-256 is {digest}")


def main() -> None:
    """Check the wheels in pip's report, and write their hashes."""
    if len(sys.argv) != 4:
        sys.exit("usage: python docker/check_torch.py REPORT HASHES OUT")
    report, known, out = map(Path, sys.argv[1:])
    wheels = installed_wheels(json.loads(report.read_text(encoding="utf-8")))
    check(wheels, json.loads(known.read_text(encoding="utf-8")))
    out.write_text(json.dumps(wheels, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
