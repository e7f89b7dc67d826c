"""The public compatibility scanner `compatcanary` against the gateway, where it applies.

Forced tool calls and strict structured output come with a later version; the gateway refuses them
by name, so the scanner reports those two as failed and this test leaves them out.
"""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from node.gateway.fake import Speech
from node.gateway.trial import BOB, open_trial

VERSION = "0.2.2"
WORDS = ("The", " sky", " scatters", " blue", " light", ".")
APPLICABLE = ("Model discovery", "Chat Completions", "Chat streaming")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npx") is None, reason="npx (Node.js) is not installed"),
]


async def test_the_scanner_passes_what_this_version_has(tmp_path: Path) -> None:
    async with open_trial(Speech(BOB, WORDS)) as trial:
        command = ["npx", "--yes", f"compatcanary@{VERSION}", "scan", "--fail-on", "never"]
        command += ["--base-url", f"{trial.gateway.url}/v1", "--model", "auto", "--profile", "chat"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": "any", "NO_COLOR": "1"},
        )
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
    lines = output.decode().splitlines()
    for check in APPLICABLE:
        verdicts = [line for line in lines if check in line and line.split()[0] in ("PASS", "FAIL")]
        assert len(verdicts) == 1, output.decode()
        assert verdicts[0].startswith("PASS"), verdicts[0]
