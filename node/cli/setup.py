"""Makes the virtual environment of a working copy, with what was tested and nothing else.

Knows venv and pip. It runs before anything is installed, so it needs the standard library only.
"""

import argparse
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from node.child import child

ROOT = Path(__file__).resolve().parents[2]
_STAMP = "dslm-setup"
_NEEDED_GB = 3.0
"""An environment with the CPU build of torch, with room to unpack."""
_NEEDED_WITH_CUDA_GB = 12.0


class SetupError(Exception):
    """What went wrong and what to do, for a person."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up if that is still to be done, then become the module that follows `--then`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    then = given[1:] if given[:1] == ["--then"] else []
    if not then:
        parser = argparse.ArgumentParser(prog="scripts/setup", description=__doc__)
        parser.parse_args(given)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    environment = ROOT / ".venv"
    try:
        set_up(ROOT, environment, _extras())
    except SetupError as error:
        _tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _tell("interrupted; running it again goes on from here")
        return 130
    if then:
        python = str(environment / "bin" / "python")
        os.execv(python, [python, "-m", *then])  # noqa: S606  (we become it)
    return 0


def set_up(root: Path, environment: Path, extras: str) -> None:
    """Make `environment` hold what `root` needs; nothing if it does already."""
    wanted = fingerprint(root, extras)
    stamp = environment / _STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _require_machine()
    _tell_cost(root)
    _make_environment(environment)
    _tell(f"installing into {environment}")
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install"]
    quiet = ["--no-input", "--disable-pip-version-check"]
    what = ["-c", str(root / "constraints.txt"), "-e", f"{root}[{extras}]"]
    _run(
        pip + quiet + what,
        "pip could not install everything (its words are above). Running this again goes on from "
        "here; what was downloaded is kept",
    )
    temporary = stamp.with_suffix(".new")
    temporary.write_text(wanted)
    temporary.replace(stamp)
    _tell("set up")


def fingerprint(root: Path, extras: str) -> str:
    """Changes when anything changes that decides what is installed."""
    digest = hashlib.sha256(extras.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def _extras() -> str:
    with_interop = os.environ.get("DSLM_INTEROP") == "1"  # noqa: TID251  (config needs installing)
    return "dev,interop" if with_interop else "dev"


def _require_machine() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (the one place that old versions reach)
        raise SetupError(f"Python 3.11 or newer is needed, this is {platform.python_version()}")
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        _tell(f"warning: tested on Linux x86_64 only, this is {machine}; README tells what works")


def _tell_cost(root: Path) -> None:
    free = shutil.disk_usage(root).free / 1e9
    _tell("setting up a virtual environment in .venv")
    _tell("  download: about 0.5 GB with the CPU build of torch, 3.5 GB with the CUDA build")
    _tell("  disk:     about 1.7 GB with the CPU build, 8 GB with the CUDA build")
    _tell(f"  free:     {free:.1f} GB")
    if free < _NEEDED_GB:
        raise SetupError(f"{_NEEDED_GB:.0f} GB free are needed in {root}: make room first")
    if not Path("/proc/driver/nvidia").exists() and free < _NEEDED_WITH_CUDA_GB:
        _tell(
            "  pip takes the CUDA build. For the small one, set PIP_EXTRA_INDEX_URL before to the"
        )
        _tell("  index of CPU builds that PyTorch's installation page names")


def _make_environment(environment: Path) -> None:
    python = environment / "bin" / "python"
    if python.exists() and _works(python):
        return
    _run(
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        "no virtual environment could be made. On Debian and Ubuntu: "
        f"sudo apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
    )


def _works(python: Path) -> bool:
    command = [str(python), "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _run(command: list[str], trouble: str) -> None:
    """Run with its output on stderr; `SetupError(trouble)` if it fails. It does not outlive us."""
    with child(command) as process:
        code = process.wait()
    if code != 0:
        raise SetupError(trouble)


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
