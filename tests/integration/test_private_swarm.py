"""Five daemons in a private swarm: invited, revoked, killed, restarted (see `private_swarm.py`)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from node.config import environment

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def story() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "private_swarm", Path(__file__).with_name("private_swarm.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_private_swarm_lives_through_what_happens_to_swarms(
    tmp_path: Path, models_dir: Path, smollm2_path: Path
) -> None:
    assert smollm2_path.exists()
    told = story()
    variables = environment() | {"DSLM_MODELS_DIR": str(models_dir), "OMP_NUM_THREADS": "1"}
    with told.PrivateSwarm(tmp_path, variables) as swarm:
        told.live(swarm)
    assert swarm.facts["revoked within"] < 60
    assert swarm.facts["network daemon back within"] < 5
    assert swarm.facts["member back within"] < 15
    shown = "\n".join(swarm.transcript) + swarm.logs()
    assert told.PASSPHRASE not in shown
