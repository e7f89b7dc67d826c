"""What a model will take, what `auto` takes, and what is said when nothing fits."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.engine.config import LlamaConfig
from node.hosting.memory import Load, cache_bytes, choose_precision, footprint
from protocols.errors import ModelFileError

SMOLLM2 = LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, 1e5)
LOAD = Load(Path("m.gguf"), SMOLLM2, 8, 2048)
PLENTY = 2**40


def test_the_cache_of_smollm2_is_as_large_as_known() -> None:
    """22.5 KiB a token in bf16, 45 in fp32; packed weights are computed in bf16."""
    for precision in ("bf16", "int8", "int4"):
        assert cache_bytes(SMOLLM2, 1, precision) == 22.5 * 1024
    assert cache_bytes(SMOLLM2, 1, "fp32") == 45 * 1024
    assert SMOLLM2.parameters == 134_515_008


def test_what_is_asked_for_is_taken_if_it_fits() -> None:
    for precision in ("fp32", "bf16", "int8", "int4"):
        assert choose_precision(precision, "int4", LOAD, PLENTY) == precision
        exactly = footprint(LOAD, precision).total
        assert choose_precision(precision, None, LOAD, exactly) == precision
        with pytest.raises(ModelFileError, match=f"for weights in {precision}"):
            choose_precision(precision, None, LOAD, exactly - 1)


def test_auto_takes_the_best_that_fits() -> None:
    assert choose_precision("auto", None, LOAD, PLENTY) == "bf16"
    assert choose_precision("auto", None, LOAD, footprint(LOAD, "bf16").total - 1) == "int8"
    assert choose_precision("auto", None, LOAD, footprint(LOAD, "int8").total - 1) == "int4"


def test_auto_keeps_a_packed_file_as_it_is() -> None:
    assert choose_precision("auto", "int4", LOAD, PLENTY) == "int4"
    assert choose_precision("auto", "int8", LOAD, PLENTY) == "int8"
    assert choose_precision("auto", "int8", LOAD, footprint(LOAD, "int8").total - 1) == "int4"


@pytest.mark.parametrize(
    ("available", "said"),
    [
        (footprint(LOAD, "bf16").total, r"In bf16 it would fit, with 0\.\d\d GiB"),
        (footprint(LOAD, "int4").total, r"In int4 it would fit, with 0\.\d\d GiB"),
        (footprint(LOAD, "int4").total - 1, "In int4 7 answers of 2048 tokens would fit"),
        (400_000_000, r"In int4 \d answers? of"),
        (footprint(LOAD, "int4").total - 8 * 2047 * 23040, "In int4 one answer of"),
        (100_000_000, r"Even in int4 it needs 0\.\d\d GiB without any answer"),
    ],
)
def test_a_refusal_says_what_would_fit(available: int, said: str) -> None:
    with pytest.raises(ModelFileError, match=said) as caught:
        choose_precision("fp32", None, LOAD, available)
    assert "needs 1.3" in str(caught.value)
    assert "0.50 GiB for weights in fp32, 0.70 GiB for 8 answers of 2048" in str(caught.value)


def test_auto_that_does_not_fit_is_refused_with_the_smallest() -> None:
    with pytest.raises(ModelFileError, match=r"weights in int4, .* would fit"):
        choose_precision("auto", "int4", LOAD, footprint(LOAD, "int4").total - 1)


def test_on_a_gpu_packed_weights_take_as_much_as_bf16_and_auto_is_bf16() -> None:
    load = replace(LOAD, is_on_gpu=True)
    assert footprint(load, "int4").weights == footprint(load, "bf16").weights
    assert footprint(load, "bf16").work > footprint(LOAD, "bf16").work
    assert choose_precision("auto", "int4", load, PLENTY) == "bf16"
    with pytest.raises(ModelFileError, match=r"(Even in|In) int4"):
        choose_precision("auto", None, load, footprint(load, "bf16").total - 1)
