"""The baseline llama.cpp: got as source through pip, built for this machine, kept in the cache.

Knows how to get it and how to ask its own `llama-bench`; must not know our engine.
`scripts/llama-cpp` runs it. What it downloads is the source package of llama-cpp-python; pip runs
the package's own preparation, and what is built has the digest that is pinned here.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from node.hosting.download import require_digest
from node.quantities import format_size
from protocols.errors import UserError

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
SDIST_BYTES = 76_589_250
INSIDE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
TARGET = "llama-bench"
HOW = f"scripts/llama-cpp downloads it ({SDIST_BYTES / 1e6:.0f} MB) and builds it (some minutes)"
SETTINGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
TILES = """\
#pragma once
#ifdef __AMX_TILE__
#include <immintrin.h>
/* GCC before 14 tells itself that _tile_loadconfig reads 8 of its 64 bytes, drops the stores of the
   others, and the program dies of the first tile instruction. */
static inline void load_all_of_tile_config(const void *config) {
    __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])config));
}
#undef _tile_loadconfig
#define _tile_loadconfig load_all_of_tile_config
#endif
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings of llama.cpp that can make it quicker or slower, by machine."""

    is_repacked: bool
    is_flash: bool

    @property
    def arguments(self) -> list[str]:
        """For the command line."""
        return ["--repack", str(int(self.is_repacked)), "-fa", str(int(self.is_flash))]

    def __str__(self) -> str:
        packing = "repacked" if self.is_repacked else "as in the file"
        return f"weights {packing}, flash attention {'on' if self.is_flash else 'off'}"


VARIANTS = tuple(Variant(repack, flash) for repack in (True, False) for flash in (True, False))


def program() -> Path:
    """Where the built `llama-bench` is kept."""
    return platformdirs.user_cache_path("dslm") / f"llama.cpp-{VERSION}" / TARGET


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """Its `llama-bench` with one model and a number of threads."""

    model: Path
    threads: int

    def rate(self, kind: str, tokens: int, variant: Variant) -> float:
        """Tokens a second, once, after its own warm-up: `kind` is `-p` (a prompt) or `-n` (an
        answer, from an empty context).
        """
        other = "-n" if kind == "-p" else "-p"
        command: list[str | Path] = [program(), "-m", self.model, "-t", str(self.threads)]
        command += [kind, str(tokens), other, "0", "-r", "1", "-o", "json", *variant.arguments]
        done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603
        return float(json.loads(done.stdout)[0]["avg_ts"])

    def best(self, kind: str, tokens: int) -> Variant:
        """The quickest of its variants, tried once each: they are far apart where it matters."""
        return max(VARIANTS, key=lambda one: self.rate(kind, tokens, one))


def version() -> str:
    """What was built; `unknown` for a program that does not say."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    said = (done.stdout + done.stderr).splitlines()
    return f"llama.cpp {next((line for line in said if 'version' in line), 'unknown')}"


def get() -> Path:
    """Download, check, build and keep it. `UserError` with the last words of what failed."""
    place = program()
    if place.exists():
        return place
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        raise UserError("CMake and a C++ compiler are needed: install cmake, ninja-build and g++")
    with tempfile.TemporaryDirectory(prefix="dslm-llama-cpp-") as name:
        folder = Path(name)
        sources = _sources(_sdist(folder), folder)
        (sources / "tiles.h").write_text(TILES)
        built = sources / "build" / "bin" / TARGET
        flags = f"-DCMAKE_CXX_FLAGS=-include {sources / 'tiles.h'}"
        _run("configuring", [cmake, "-S", sources, "-B", sources / "build", *SETTINGS, flags])
        jobs = str(len(os.sched_getaffinity(0)))
        build: list[str | Path] = [
            cmake,
            "--build",
            sources / "build",
            "--target",
            TARGET,
            "-j",
            jobs,
        ]
        _run(f"building {TARGET} with {jobs} processes; some minutes", build)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources / "LICENSE", place.parent)
        fresh = place.with_suffix(".new")
        shutil.copy(built, fresh)
        fresh.replace(place)
    return place


def _sdist(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    command += ["--progress-bar", "off", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    _run(f"downloading {PACKAGE} {VERSION}, {format_size(SDIST_BYTES)}", command)
    found = next(iter(folder.glob("*.tar.gz")), folder / "nothing")
    require_digest(found, SDIST_SHA256, found.name)
    return found


def _sources(sdist: Path, folder: Path) -> Path:
    """llama.cpp's part of the package."""
    print("unpacking", flush=True)
    with tarfile.open(sdist) as archive:
        wanted = [one for one in archive.getmembers() if one.name.startswith(INSIDE)]
        archive.extractall(folder, wanted, filter="data")
    return folder / INSIDE


def _run(what: str, command: Sequence[str | Path]) -> None:
    print(what, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise UserError(f"{what} failed:\n{last}")


def main() -> int:
    """`scripts/llama-cpp`."""
    try:
        place = get()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{place} ({format_size(place.stat().st_size)}): {version()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
