"""Where this node keeps its files on this machine.

Knows folders and file names; must not know settings, and reads and writes nothing.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

_APPLICATION = "dslm"
_RUNTIME_BYTES_MAX = 72
"""Leaves room for a folder and a socket with names of 34 bytes together."""
SYSTEM_CONFIG_FILE = Path("/etc/dslm/config.toml")


@dataclass(frozen=True, slots=True)
class Paths:
    """Absolute paths; none of them has to exist."""

    config_file: Path
    """The user's configuration."""
    data: Path
    """What must survive: the identity key and the records of this node."""
    state: Path
    """What may be lost: the log and the pid file."""
    models: Path
    """Fetched model files; may be shared by several nodes of one user."""

    @property
    def identity_file(self) -> Path:
        """The private key (mode 0600)."""
        return self.data / "identity.key"

    @property
    def swarms(self) -> Path:
        """A folder for each swarm that this node belongs to (mode 0700)."""
        return self.data / "swarms"

    @property
    def open_swarms(self) -> Path:
        """What is remembered of swarms that belong to nobody."""
        return self.data / "open"

    @property
    def owners(self) -> Path:
        """Keys of swarms that were made here, encrypted; they should be moved elsewhere."""
        return self.data / "owners"

    @property
    def api_keys_file(self) -> Path:
        """Hashes of the API's keys (mode 0600)."""
        return self.data / "api.keys"

    @property
    def admin_token_file(self) -> Path:
        """The secret of `/api/v1`, made anew by each start of a node (mode 0600)."""
        return self.state / "admin.token"

    @property
    def log_file(self) -> Path:
        """What a node in the background writes."""
        return self.state / "dslm.log"

    @property
    def kernels(self) -> Path:
        """What the engine compiled for this machine (mode 0700), once for all nodes of one user."""
        return self.models / "kernels"

    @property
    def own_kernels(self) -> Path:
        """The same for this node alone, where `kernels` cannot be used."""
        return self.state / "kernels"

    @property
    def runtime(self) -> Path:
        """For sockets, whose whole path may have 107 bytes only.

        Below `state`, unless that is too long a path; then below the system's temporary folder,
        where its user must check that it owns what is there.
        """
        folder = self.state / "run"
        if len(os.fsencode(folder)) <= _RUNTIME_BYTES_MAX:
            return folder
        name = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"dslm-{os.getuid()}-{name}"

    @property
    def pid_file(self) -> Path:
        """Locked by the running node; says which process that is."""
        return self.state / "dslm.pid"


def paths_below(home: Path) -> Paths:
    """Everything in one folder, as `DSLM_HOME` and `--home` ask for."""
    home = home.expanduser().absolute()
    return Paths(home / "config.toml", home / "data", home / "state", home / "models")


def user_paths() -> Paths:
    """The folders that this platform gives to a user's programs (XDG on Linux)."""
    return Paths(
        platformdirs.user_config_path(_APPLICATION) / "config.toml",
        platformdirs.user_data_path(_APPLICATION),
        platformdirs.user_state_path(_APPLICATION),
        platformdirs.user_cache_path(_APPLICATION) / "models",
    )
