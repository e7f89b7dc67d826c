"""The engine's benchmark: which baseline counts, what is a target met, what is left out."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

import engine
import engine_many as many
import engine_memory as memory
import engine_setting
import engine_single as single
from engine_child import Child, Order, Ready, Result
from engine_llama_cpp import VARIANTS
from engine_many import in_turn, to_invent, to_repeat
from engine_setting import Compared, Missing, Setting, Target
from engine_single import overhead_rows, prefill_rows, python_share
from report import Row

SETTING = Setting(Path("model.gguf"), is_quick=False)


def test_targets_are_bounds_from_below_or_from_above() -> None:
    least, most = Target(1.1), Target(0.05, is_most=True)
    assert (least.met(1.1), least.met(1.0999)) == (True, False)
    assert (most.met(0.05), most.met(0.0501)) == (True, False)
    assert (str(least), str(most)) == ("at least 1.1x", "at most 0.05x")


def test_a_comparison_gives_the_baseline_and_then_ours() -> None:
    theirs, ours = Compared([30.0, 20.0, 25.0], [10.0] * 3).rows("x", "theirs", "ms", Target(2.6))
    assert (theirs.name, theirs.value, theirs.met) == ("x: theirs", 10, None)
    assert (ours.name, ours.value, ours.ratio, ours.met) == ("x", 25, 2.5, False)
    assert ours.note == "spread 40%, theirs 0%"


def test_a_prompt_is_compared_with_the_better_baseline() -> None:
    found = {
        "transformers": [10.0, 90.0, 100.0],
        "llama.cpp": [80.0] * 3,
        "int4": [99.0] * 3,
        "bf16": [180.0] * 3,
    }
    rows = {row.name: row for row in prefill_rows(found, 512)}
    assert rows["prefill, 512 tokens: llama.cpp"].value == 80
    assert rows["prefill, 512 tokens: transformers"].value == 90
    four, wide = rows["prefill, 512 tokens, int4"], rows["prefill, 512 tokens, bf16"]
    assert (four.baseline, four.ratio, four.met) == ("transformers", 1.1, False)
    assert (wide.baseline, wide.ratio, wide.met) == ("transformers", 2.0, True)
    del found["transformers"]
    rows = {row.name: row for row in prefill_rows(found, 512)}
    assert rows["prefill, 512 tokens, int4"].baseline == "llama.cpp"


def test_pythons_share_is_what_native_calls_leave() -> None:
    assert python_share(Result(2.0, 10, native_seconds=1.5)) == 0.25
    assert python_share(Result(2.0, 10, native_seconds=2.1)) == 0
    found = {"share": [0.1, 0.2, 0.16], "step": [8.0] * 3, "through": [8.8] * 3}
    step, share, through = overhead_rows("int4", found)
    assert (step.value, share.value, share.met) == (8, 16, False)
    assert through.ratio == pytest.approx(1.1)


def test_rows_are_named_and_all_are_measured_by_default() -> None:
    assert engine.wanted("") == list(engine.ROWS)
    assert engine.wanted("prefill,cuda") == ["prefill", "cuda"]
    with pytest.raises(ValueError, match="no row prefil; there are decode_int4, "):
        engine.wanted("prefill,prefil")


def test_a_row_that_cannot_be_measured_says_why_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: Setting) -> list[Row]:
        raise Missing("no such device")

    monkeypatch.setattr(
        engine, "ROWS", {"first": absent, "second": lambda _: [Row("it", 1.0, "s")]}
    )
    first, second = engine.measure(["first", "second"], SETTING)
    assert (first.name, first.value, first.met, first.note) == (
        "first",
        None,
        None,
        "no such device",
    )
    assert (second.name, second.value) == ("it", 1.0)
    assert "measuring first" in capsys.readouterr().err


def test_a_quick_run_is_one_round_of_short_answers() -> None:
    quick = Setting(Path("model.gguf"), is_quick=True)
    assert (SETTING.rounds, SETTING.tokens(128)) == (5, 128)
    assert (quick.rounds, quick.tokens(128), quick.tokens(8)) == (1, 16, 4)


def test_who_took_part_is_told_once() -> None:
    setting = Setting(Path("model.gguf"), is_quick=True)
    for text in ("a", "b", "a"):
        setting.tell(text)
    assert setting.about == ["a", "b"]


def test_no_round_of_speculation_repeats_another() -> None:
    """Else guesses would come from the answer of the round before."""
    for made in (to_repeat, to_invent):
        orders = [made(number, 64) for number in range(6)]
        assert len({order.text for order in orders}) == 6
        assert {order.seed for order in orders} == set(range(6))
    lines = [set(to_repeat(number, 64).text.splitlines()[1:]) for number in range(6)]
    assert all(len(one & other) <= 1 for one, other in pairwise(lines))


class Recorded(Child):
    """Answers every order in as many seconds as its answer has tokens."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

        self.ready = Ready(95_000_000, "recorded")

    def ask(self, order: Order) -> Result:
        self.orders.append(order)
        seconds = float(len(self.orders))
        return Result(seconds, 12, (2.0, 0.05), native_seconds=0.9 * seconds, perplexity=2.5)


class RecordedSetting(Setting):
    """Has nobody but `Recorded` answer."""

    @contextmanager
    def ours(self, precision: str, threads: int = 0, speculation: str = "off") -> Iterator[Child]:  # noqa: ARG002
        yield Recorded()

    @contextmanager
    def transformers(self, threads: int = 0) -> Iterator[Child]:  # noqa: ARG002
        yield Recorded()


HERE = RecordedSetting(Path("model.gguf"), is_quick=False)


def test_every_row_of_both_precisions_has_its_target() -> None:
    judged = {
        single.decode_bf16: {"decode, batch 1, bf16": "at least 2.5x"},
        many.concurrent: {
            "16 requests at once, int4": "at least 2.5x",
            "16 requests at once, bf16": "at least 5x",
        },
        many.prefix: {
            "time to first token, 1000 tokens shared, int4": "at most 0.05x",
            "time to first token, 1000 tokens shared, bf16": "at most 0.05x",
        },
        many.speculation: {
            "speculation, text that repeats its input, int4": "at least 1.5x",
            "speculation, text that does not, int4": "at least 0.97x",
            "speculation, text that repeats its input, bf16": "at least 2x",
            "speculation, text that does not, bf16": "at least 0.97x",
        },
        single.overhead: {
            "our Python between kernels, decode int4": "at most 0.15x",
            "our Python between kernels, decode bf16": "at most 0.15x",
        },
        memory.memory: {"resident weights, int4 and int8 embedding": "at most 0.38x"},
    }
    for measure, targets in judged.items():
        rows = measure(HERE)
        assert {row.name: row.target for row in rows if row.target} == targets
        assert all((row.met is None) == (row.target is None) for row in rows)


def test_waits_for_the_first_token_are_over_all_rounds() -> None:
    rows = {row.name: row.value for row in many.concurrent(HERE)}
    assert rows["16 requests at once, int4: time to first token, p95"] == 2
    assert rows["16 requests at once, int4: time to first token, median"] == 1.025


def test_the_second_request_is_compared_with_the_first() -> None:
    cold, second = many.prefix(HERE)[:2]
    assert (cold.value, second.value, second.ratio, second.met) == (2000, 50, 0.025, True)


def test_adapters_are_compared_with_none_of_the_same_precision() -> None:
    rows = [row for row in many.adapters(HERE) if row.baseline]
    assert len(rows) == 4
    assert {row.baseline for row in rows} == {"no adapters"}


def test_without_llama_cpp_its_rows_say_how_to_get_it_and_prompts_have_one_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_setting, "program", lambda: Path("there/is/none"))
    with pytest.raises(Missing, match="scripts/llama-cpp downloads it"):
        single.decode_int4(HERE)
    setting = RecordedSetting(Path("model.gguf"), is_quick=False)
    rows = single.prefill(setting)
    assert [row.baseline for row in rows] == [None, "transformers", "transformers"]
    assert "scripts/llama-cpp" in setting.about[0]


def test_both_get_the_same_orders_and_the_first_does_not_count() -> None:
    one, other = Recorded(), Recorded()
    orders = [to_invent(number, 8) for number in range(4)]
    both = in_turn((one, orders), (other, orders))
    assert one.orders == other.orders == orders
    assert both.ours == both.theirs == [12 / 2, 12 / 3, 12 / 4]


def test_all_settings_of_llama_cpp_are_tried() -> None:
    tried = {tuple(one.arguments) for one in VARIANTS}
    assert len(tried) == 4
    assert ("--repack", "1", "-fa", "0") in tried
