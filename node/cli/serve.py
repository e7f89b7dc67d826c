"""`dslm serve`: be the node, in the foreground.

Knows how the process starts and ends; `node.app` knows the node, and is imported only here.
"""

import ctypes
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from node.cli.ownership import require_own_names
from node.cli.preparing import require_api_keys, require_free_ports, with_model_files
from node.cli.progress import Bars
from node.cli.serve_log import set_up_logging
from node.cli.settings import (
    ApiFlag,
    ListenFlag,
    ModelFlag,
    NameFlag,
    PrecisionFlag,
    SetFlag,
    SettingFlags,
)
from node.cli.verb import Invocation, verb
from node.config import NodeConfig, let_threads_sleep
from node.process import RunningNode, hold
from protocols.errors import DslmError, UserError
from protocols.versions import SOFTWARE

EPILOG = """\b
Examples:
  dslm serve
  dslm serve --model ./my-model.gguf --model smollm2
  dslm serve --model none --set network.bootstrap=/ip4/192.0.2.7/tcp/7779/p2p/12D3KooWQ9...
  dslm serve --home /srv/dslm --set log.json=true

\b
SIGTERM or Ctrl-C lets running answers end, then stops. `dslm config env` lists all settings.
"""
_PR_SET_PDEATHSIG = 1


@verb
def serve(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    model: ModelFlag = [],  # noqa: B006  (never changed)
    listen: ListenFlag = "",
    api: ApiFlag = "",
    name: NameFlag = "",
    precision: PrecisionFlag = "",
    set_: SetFlag = [],  # noqa: B006
    with_parent: Annotated[int, typer.Option("--with-parent", hidden=True)] = 0,
) -> None:
    """Run the node in the foreground."""
    if with_parent:
        _end_with_parent(with_parent)
    require_own_names()
    flags = SettingFlags(model, listen, api, name, set_, precision)
    config = invocation.load(flags.pairs(), tuple(model)).config
    running = RunningNode(os.getpid(), config.api.url, SOFTWARE)
    with hold(config.paths.pid_file, running):
        require_api_keys(config)
        require_free_ports(config)
        with Bars() as bars:
            ready = with_model_files(config, bars)
        set_up_logging(config.log)
        _run(ready)


def _run(config: NodeConfig) -> None:
    let_threads_sleep()
    import asyncio

    from node.app import run

    try:
        asyncio.run(run(config))
    except BaseExceptionGroup as group:
        raise _cause(group) from group
    except KeyboardInterrupt:
        logging.getLogger(__name__).info("interrupted")


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person can act on, if there is one among them."""
    named = group.subgroup(DslmError)
    found: BaseException = named if named is not None else group
    while isinstance(found, BaseExceptionGroup) and (
        named is not None or len(found.exceptions) == 1
    ):
        found = found.exceptions[0]
    return found


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when process `parent`, which started this one, ends.

    `UserError` if it has ended already.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise UserError("the kernel refuses to tie this process to the one that started it")
    if os.getppid() != parent:
        raise UserError("the process that started this one has gone")
