"""What breaks in the encoder's libraries is an error about one text, and ends nothing else."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt
from node.hosting.contained_encoder import ContainedEncoder
from protocols.errors import Busy, DslmError, Unsupported


class PanicException(BaseException):
    """As compiled Rust raises it: no `Exception`."""


class Fail(Exception):
    """As onnxruntime's."""


class Breaking:
    digest = "e"

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await asyncio.to_thread(self._encode, texts)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if "bad" in texts:
            raise self._fault
        return np.ones((len(texts), 1), np.float32)

    async def encode_prompt(
        self,
        text: str,
        parts: Sequence[tuple[int, int]] = (),  # noqa: ARG002
    ) -> EncodedPrompt:
        return EncodedPrompt((await self.encode([text]))[0], np.zeros((0, 1), np.float32))


@pytest.mark.parametrize(
    "fault", [PanicException("index out of bounds"), Exception("odd"), Fail("bad shape")]
)
async def test_a_defect_is_refused_and_the_tasks_beside_it_live(fault: BaseException) -> None:
    encoder = ContainedEncoder(Breaking(fault))

    async def ask() -> None:
        with pytest.raises(Unsupported, match=str(fault)):
            await encoder.encode(["bad"])
        with pytest.raises(Unsupported, match=str(fault)):
            await encoder.encode_prompt("bad")

    async with asyncio.TaskGroup() as tasks:
        beside = tasks.create_task(encoder.encode(["good"]))
        tasks.create_task(ask())
    assert beside.result().shape == (1, 1)
    assert encoder.digest == "e"


async def test_what_is_an_error_of_ours_or_a_cancellation_stays_one() -> None:
    with pytest.raises(Busy):
        await ContainedEncoder(Breaking(Busy("full"))).encode(["bad"])
    with pytest.raises(asyncio.CancelledError):
        await ContainedEncoder(Breaking(asyncio.CancelledError())).encode(["bad"])
    assert issubclass(Unsupported, DslmError)
