"""Pages in the compiled step's own layout: out as torch has them, in as they were."""

import pytest
import torch

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.native.library import NativeLibrary
from node.engine.pages import PAGE_SIZE
from tests.integration.native_models import PAGES, POSITIONS, config_of, native, referee, tokens_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

CONFIG = config_of(6, 2, 32)
TOKENS = 5 * PAGE_SIZE
SCATTERED = [7, 3, 11, 0, 5]


def test_pages_go_out_and_in_wherever_they_lie(library: NativeLibrary) -> None:
    ids = tokens_of(CONFIG, TOKENS + 3)
    model = native(library, CONFIG, "bf16")
    one, other = model.open(POSITIONS), model.open(POSITIONS)
    one.run([Chunk(ids[:TOKENS], 0, SCATTERED, 1)])
    block = one.export_pages(SCATTERED)
    assert block.keys.shape == block.values.shape == (2, 2, TOKENS, 32)
    places = [9, 2, 4, 6, 1]
    other.import_pages(places, block)
    back = other.export_pages(places)
    assert torch.equal(back.keys, block.keys)
    assert torch.equal(back.values, block.values)
    rest = ids[TOKENS:]
    wanted = one.run([Chunk(rest, TOKENS, [*SCATTERED, 8], 3)])
    found = other.run([Chunk(rest, TOKENS, [*places, 8], 3)])
    assert torch.equal(wanted, found)


def test_torch_reads_what_the_compiled_step_wrote(library: NativeLibrary) -> None:
    ids = tokens_of(CONFIG, TOKENS + 1)
    runner = native(library, CONFIG, "bf16").open(POSITIONS)
    pages = list(range(PAGES))
    runner.run([Chunk(ids[:TOKENS], 0, pages, 1)])
    block = runner.export_pages(pages[:5])
    model = referee(CONFIG, "bf16")
    cache = KeyValueCache(CONFIG, POSITIONS, torch.float32)
    model.forward(build_batch([Chunk(ids[:TOKENS], 0, pages, 1)], torch.float32), cache)
    own = cache.export_pages(pages[:5])
    for one, other in ((block.keys, own.keys), (block.values, own.values)):
        error = (one.float() - other).norm() / other.norm()
        assert float(error) < 0.02, "laid out otherwise, nothing would agree"
    cache.import_pages(pages[:5], block)
    last = build_batch([Chunk(ids[TOKENS:], TOKENS, pages, 1)], torch.float32)
    found = model.forward(last, cache)
    wanted = runner.run([Chunk(ids[TOKENS:], TOKENS, pages, 1)])
    assert float((found - wanted).norm() / wanted.norm()) < 0.03
