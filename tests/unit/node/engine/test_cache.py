import pytest
import torch
from torch import Tensor

from node.engine.batch import Chunk, Span, build_batch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig

PAGES = (3, 0, 4)
TOKENS = 40


def span_of(pages: tuple[int, ...]) -> tuple[Tensor, Span]:
    """The slots of forty tokens in `pages`, and a span that sees them."""
    batch = build_batch([Chunk(range(TOKENS), 0, pages, True)], torch.float32)
    return batch.slots, batch.spans[0]


def test_slots_follow_the_block_table() -> None:
    slots, span = span_of(PAGES)
    assert slots.tolist() == [*range(48, 64), *range(16), *range(64, 72)]
    assert span.gather is not None
    assert span.gather.tolist() == [3, 0, 4]
    one = build_batch([Chunk([9, 9], 15, PAGES, True)], torch.float32)
    assert one.slots.tolist() == [63, 0]
    assert one.spans[0].gather is not None
    assert one.spans[0].gather.tolist() == [3, 0], "pages that are not reached are not read"


@pytest.mark.parametrize("pages", [(2, 3, 4), PAGES])
def test_stored_tokens_are_read_back_in_their_order(
    tiny_config: LlamaConfig, pages: tuple[int, ...]
) -> None:
    cache = KeyValueCache(tiny_config, 80, torch.float32)
    slots, span = span_of(pages)
    keys, values = torch.randn(TOKENS, 2, 8), torch.randn(TOKENS, 2, 8)
    cache.store(1, slots, keys, values)
    cache.store(0, slots, values, keys)
    read_keys, read_values = cache.layer(1).read(span)
    assert torch.equal(read_keys, keys.transpose(0, 1))
    assert torch.equal(read_values, values.transpose(0, 1))


def test_pages_that_follow_each_other_are_read_without_a_copy(tiny_config: LlamaConfig) -> None:
    cache = KeyValueCache(tiny_config, 80, torch.float32)
    slots, span = span_of((2, 3, 4))
    keys, _ = cache.layer(0).read(span)
    cache.store(0, slots, torch.ones(TOKENS, 2, 8), torch.ones(TOKENS, 2, 8))
    assert bool((keys == 1).all()), "a view sees what is written later"


def test_the_size_is_that_of_whole_pages(tiny_config: LlamaConfig) -> None:
    cache = KeyValueCache(tiny_config, 17, torch.float32)
    assert cache.size == 32 * tiny_config.cache_values_per_token * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pages", [(2, 3, 4), PAGES])
def test_int8_keeps_each_vector_within_half_a_step_of_its_largest_number(
    tiny_config: LlamaConfig, dtype: torch.dtype, pages: tuple[int, ...]
) -> None:
    cache = KeyValueCache(tiny_config, 80, dtype, is_quantised=True)
    slots, span = span_of(pages)
    scale = torch.logspace(-4, 4, TOKENS).view(TOKENS, 1, 1)
    vectors = [(torch.randn(TOKENS, 2, 8) * scale).to(dtype) for _ in range(2)]
    vectors[0][5] = 0
    cache.store(1, slots, *vectors)
    for wrote, read in zip(vectors, cache.layer(1).read(span), strict=True):
        assert read.dtype is dtype
        error = (read.transpose(0, 1).float() - wrote.float()).abs()
        # bf16 rounds scale and product once more each.
        step = wrote.float().abs().amax(-1, keepdim=True) * (
            0.5 / 127 + 2**-7 * (dtype.itemsize == 2)
        )
        assert bool((error <= step * 1.001).all())
    assert cache.size == 80 * tiny_config.cache_values_per_token * (8 + 4) / 8
