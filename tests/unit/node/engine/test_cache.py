import pytest
import torch

from node.engine.cache import Extent, ExtentAllocator, KeyValueCache
from node.engine.config import LlamaConfig


def test_extents_are_first_fit_and_merge_when_freed() -> None:
    allocator = ExtentAllocator(10)
    first, second, third = (allocator.allocate(3) for _ in range(3))
    assert (first, second, third) == (Extent(0, 3), Extent(3, 3), Extent(6, 3))
    assert allocator.allocate(2) is None
    assert allocator.allocate(1) == Extent(9, 1)
    assert allocator.used == 10
    assert first is not None
    assert second is not None
    allocator.free(second)
    assert allocator.allocate(4) is None
    allocator.free(first)
    assert allocator.allocate(6) == Extent(0, 6)


def test_freeing_twice_is_an_error() -> None:
    allocator = ExtentAllocator(10)
    extent = allocator.allocate(4)
    assert extent is not None
    allocator.free(extent)
    with pytest.raises(ValueError, match="not in use"):
        allocator.free(extent)
    with pytest.raises(ValueError, match="at least one"):
        allocator.allocate(0)


def test_stored_tokens_are_found_in_their_slots(tiny_config: LlamaConfig) -> None:
    cache = KeyValueCache(tiny_config, 8, torch.float32)
    keys, values = torch.randn(3, 2, 8), torch.randn(3, 2, 8)
    cache.store(1, torch.tensor([6, 0, 3]), keys, values)
    stored_keys, stored_values = cache.layer(1)
    assert stored_keys.shape == (2, 8, 8)
    assert torch.equal(stored_keys[:, [6, 0, 3]], keys.transpose(0, 1))
    assert torch.equal(stored_values[:, [6, 0, 3]], values.transpose(0, 1))
    assert cache.size == 8 * tiny_config.cache_values_per_token * 4
