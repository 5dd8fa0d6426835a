"""Remove files of installed packages that neither the labs nor --online can use.

usage: python docker/trim.py lock|torch [STRIP]

The Dockerfile calls it for the layer of the lock and for that of torch. STRIP is the command that
removes symbol tables. Each package's RECORD then has the remaining files and their new hashes.
"""

import base64
import csv
import hashlib
import io
import subprocess
import sys
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))

# Files below site-packages, as patterns of pathlib.Path.glob. Each comment has the reason.
LOCK = (
    # Tests, most of them with data.
    "**/tests",
    # Nothing in an image compiles C or Cython against these packages.
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/random/lib",
    "numpy/f2py",
    "numpy/distutils",
    "numpy/**/*.pxd",
    "pyarrow/include",
    "pyarrow/src",
    "pyarrow/**/*.px[di]",
    "pyarrow/**/*.pyx",
    # pyarrow's remote procedure calls and its file system for Amazon S3. datasets downloads with
    # huggingface_hub. No other file loads these. libarrow_substrait must stay: every module of
    # pyarrow loads it.
    "pyarrow/*flight*",
    "pyarrow/libarrow_s3.so*",
    "pyarrow/_s3fs*",
    # The same library under three names; modules load the name with one number.
    "pyarrow/libarrow_python*.so",
    "pyarrow/libarrow_python*.so.*.*.*",
    "pyarrow/_pyarrow_cpp_tests*",
    # scikit-learn can't be imported without SciPy, which the lock omits. The labs read its digits.
    "sklearn/**/*",
    "scikit_learn.libs/*",
    # LLM04 reads tokenizer.model.v1 and tekken_240911.json; the package itself isn't imported.
    "mistral_common/data/mistral_instruct_tokenizer_*",
    "mistral_common/data/tekken_240718.json",
    "matplotlib/mpl-data/sample_data",
)
TORCH = (
    # Nothing in an image compiles C++ against torch.
    "torch/include",
    "torch/share",
    "torch/lib/libshm_windows",
    # torch_shm_manager shares tensors between processes; protoc is a tool for torch's own build.
    "torch/bin/protoc*",
    # CUDA: 220 MB that no other library loads.
    "nvidia/cu13/lib/libcusolverMg.so.*",
    "nvidia/cu13/lib/libnvrtc.alt.so.*",
    "nvidia/cu13/lib/libnvrtc-builtins.alt.so.*",
)
KEPT = {"sklearn/datasets/data/digits.csv.gz"}
# Libraries with tables for debuggers and linkers, more than 1 MB. Stripping breaks libraries that
# patchelf has changed: those in folders named *.libs, and those that load them.
STRIPPED = {
    "lock": ("fontTools/misc/bezierTools.*.so", "kiwisolver/_cext.*.so"),
    "torch": ("torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so"),
}


def find(patterns: tuple[str, ...]) -> list[Path]:
    """Return the files and links that match, or are in a folder that matches."""
    found = {path for pattern in patterns for path in SITE.glob(pattern)}
    inside = {file for folder in found if folder.is_dir() for file in folder.rglob("*")}
    files = sorted(path for path in found | inside if path.is_symlink() or path.is_file())
    return [path for path in files if str(path.relative_to(SITE)) not in KEPT]


def remove(files: list[Path]) -> None:
    """Remove files, and folders that have no file left."""
    for file in files:
        file.unlink()
    for folder in sorted({parent for file in files for parent in file.parents}, reverse=True):
        if SITE in folder.parents and not any(folder.iterdir()):
            folder.rmdir()


def correct_records() -> None:
    """Remove missing files from each package's RECORD, and correct the hashes of changed files."""
    for record in SITE.glob("*.dist-info/RECORD"):
        text = record.read_text(encoding="utf-8")
        rows = [correct_row(*row) for row in csv.reader(io.StringIO(text))]
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(row for row in rows if row)
        if out.getvalue() != text:
            record.write_text(out.getvalue(), encoding="utf-8")


def correct_row(name: str, digest: str, size: str) -> tuple[str, str, str] | None:
    """Return a RECORD's row for the file as it is now, or None without the file."""
    path = SITE / name
    if not path.exists():
        return None
    if not size or int(size) == path.stat().st_size:  # stripping always changes the size
        return name, digest, size
    content = path.read_bytes()
    now = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return name, f"sha256={now}", str(len(content))


def main() -> None:
    """Remove and strip the files of a layer, then correct the packages' records."""
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in STRIPPED:
        sys.exit("usage: python docker/trim.py lock|torch [STRIP]")
    layer = sys.argv[1]
    files = find(LOCK if layer == "lock" else TORCH)
    size = sum(file.lstat().st_size for file in files)
    remove(files)
    print(f"trim: removed {len(files)} files, {size / 1e6:.0f} MB")
    if len(sys.argv) == 3:
        for file in find(STRIPPED[layer]):
            before = file.stat().st_size
            subprocess.run([sys.argv[2], "--strip-unneeded", str(file)], check=True)
            print(f"trim: stripped {file.name}, {(before - file.stat().st_size) / 1e6:.0f} MB")
    correct_records()


if __name__ == "__main__":
    main()
