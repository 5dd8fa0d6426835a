"""Write a stand-in for AMD's index of wheels, to run the ROCm stage without a network.

    python tests/docker/stand_in_rocm_index.py TORCH_CPU_WHEEL WHEELS
    LABS_WHEELS=WHEELS LABS_ROCM_INDEX=file:///wheels/simple/ LABS_GFX=gfx942 \\
        docker compose build rocm

It writes WHEELS/simple: PyTorch's CPU build with AMD's version, extras and torch.version.hip, and
empty packages with the names of its requirements. As in AMD's index, only `rocm` is a source
archive. This can't show that torch computes on an AMD GPU.
"""

import base64
import hashlib
import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.parse import quote

ROCM = "10.1.0"
HIP = "7.16.26332"
TARGETS = ("gfx942", "gfx1151")
SETUP = f"""from setuptools import setup
setup(name="rocm", version="{ROCM}", package_dir={{"": "src"}}, packages=["rocm_sdk"],
      install_requires=["rocm-sdk-core=={ROCM}"],
      extras_require={{"libraries": ["rocm-sdk-libraries=={ROCM}"]}})
"""


def publish(index: Path, project: str, file: str, content: bytes) -> None:
    """Add a file to the index, on its project's page."""
    folder = index / project
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content)
    list_files(folder)


def list_files(folder: Path) -> None:
    """Return the path of a project's page."""
    names = [one.name for one in folder.iterdir() if one.name != "index.html"]
    links = [f'<a href="{quote(name)}">{name}</a>' for name in names]
    (folder / "index.html").write_text("\n".join(links))


def record(files: dict[str, bytes], dist_info: str) -> bytes:
    """Return a wheel's list of its files."""
    lines: list[str] = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{dist_info}/RECORD,,"]).encode()


def wheel(index: Path, name: str, version: str, tag: str, requires: tuple[str, ...] = ()) -> None:
    """Publish a wheel of one empty module."""
    module = name.replace("-", "_")
    dist_info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
    about = f"Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: false\nTag: {tag}\n"
    files = {
        f"_{module}/__init__.py": b"",
        f"{dist_info}/METADATA": metadata.encode(),
        f"{dist_info}/WHEEL": about.encode(),
    }
    files[f"{dist_info}/RECORD"] = record(files, dist_info)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    publish(index, name, f"{module}-{version}-{tag}.whl", buffer.getvalue())


def torch(index: Path, cpu: Path) -> tuple[str, str]:
    """Publish the CPU wheel as AMD's, and return its new version and its tag."""
    old, tag = re.fullmatch(r"torch-([^-]+)-(.+)\.whl", cpu.name).groups()  # type: ignore
    new = f"{old.partition('+')[0]}+rocm{ROCM}"
    folder = index / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(cpu) as source,
        zipfile.ZipFile(folder / f"torch-{new}-{tag}.whl", "w") as target,
    ):
        for info in source.infolist():
            name = info.filename.replace(f"torch-{old}.dist-info", f"torch-{new}.dist-info")
            content = source.read(info)
            if name == "torch/version.py":
                content = amended(content, r"^hip\b.*$", f"hip = {HIP!r}")
                content = amended(content, r"^__version__ = .*$", f"__version__ = {new!r}")
            elif name.endswith(".dist-info/METADATA"):
                content = amended(content, r"^Version: .*$", f"Version: {new}")
                content = amended(content, r"^Requires-Python:", f"{extras(new)}Requires-Python:")
            elif name.endswith(".dist-info/RECORD"):
                # pip reads the paths and ignores the hashes.
                content = re.sub(rb"(?m),sha256=.*$", b",,", content).replace(
                    f"torch-{old}.dist-info".encode(), f"torch-{new}.dist-info".encode()
                )
            as_before = zipfile.ZipInfo(name, info.date_time)
            as_before.external_attr = info.external_attr
            target.writestr(as_before, content)
    list_files(folder)
    return new, tag


def amended(content: bytes, pattern: str, line: str) -> bytes:
    changed, times = re.subn(pattern, line, content.decode(), count=1, flags=re.MULTILINE)
    if not times:
        sys.exit(f"the CPU wheel has no line like {pattern}")
    return changed.encode()


def extras(version: str) -> str:
    """Return the additional requirements of AMD's torch, as lines of its METADATA."""
    lines = [f"Requires-Dist: rocm[libraries]=={ROCM}", f"Requires-Dist: triton==3.7.1+rocm{ROCM}"]
    for extra in (*TARGETS, "all"):
        lines.append(f"Provides-Extra: device-{extra}")
        for target in TARGETS if extra == "all" else (extra,):
            device = f"amd-torch-device-{target}=={version}"
            lines.append(f'Requires-Dist: {device} ; extra == "device-{extra}"')
    return "\n".join([*lines, ""])


def rocm(index: Path) -> None:
    """Publish the package that AMD's index only has as a source archive."""
    root = f"rocm-{ROCM}"
    buffer = io.BytesIO()
    files = {
        "setup.py": SETUP,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: rocm\nVersion: {ROCM}\n",
        "src/rocm_sdk/__init__.py": "",
    }
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{root}/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    publish(index, "rocm", f"{root}.tar.gz", buffer.getvalue())


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python tests/docker/stand_in_rocm_index.py TORCH_CPU_WHEEL WHEELS")
    cpu = Path(sys.argv[1])
    index = Path(sys.argv[2]) / "simple"
    version, tag = torch(index, cpu)
    rocm(index)
    for name in ("rocm-sdk-core", "rocm-sdk-libraries"):
        wheel(index, name, ROCM, "py3-none-linux_x86_64")
    wheel(index, "triton", f"3.7.1+rocm{ROCM}", tag)
    for target in TARGETS:
        wheel(index, f"rocm-sdk-device-{target}", ROCM, "py3-none-linux_x86_64")
        device = f"rocm-sdk-device-{target}=={ROCM}"
        wheel(index, f"amd-torch-device-{target}", version, tag, (device,))
    print(f"{index} stands in for AMD's index: torch {version}, for {', '.join(TARGETS)}.")


if __name__ == "__main__":
    main()
