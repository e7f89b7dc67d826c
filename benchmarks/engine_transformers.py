"""The baseline transformers: the same file, dequantised by it, answered with `generate`.

Knows the library's best settings for one request on a CPU (sdpa attention, logits of the last
token only); must not know our engine. A child of `engine.py`:
`python engine_transformers.py MODEL.gguf THREADS [DTYPE]`.
"""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from engine_child import Decode, Order, Prefill, Ready, Result, serve


class Arrivals:
    """What `generate` calls a streamer: notes when tokens came. The first is the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _value: object) -> None:
        """A token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """No more."""


def load(path: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401 - untyped library
    """The library's model of a file."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, attn_implementation="sdpa"
    )
    # What comes out of GGUF must be as dense as what comes out of safetensors.
    linears = [one for one in loaded.modules() if isinstance(one, torch.nn.Linear)]
    assert linears
    assert all(type(one) is torch.nn.Linear and one.weight.dtype == dtype for one in linears)
    return loaded.eval()


class Baseline:
    """Carries orders out."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        self._model = load(path, dtype)
        self._random = torch.Generator().manual_seed(1)

    def carry_out(self, order: Order) -> Result:
        """`ValueError` for what it has no equal of."""
        with torch.inference_mode():
            match order:
                case Decode():
                    return self._decode(order)
                case Prefill():
                    return self._prefill(order)
                case _:
                    raise ValueError(f"transformers is no baseline for {order}")

    def _prompt(self, tokens: int) -> torch.Tensor:
        words = self._model.config.vocab_size
        return torch.randint(32, words, (1, tokens), generator=self._random)

    def _decode(self, order: Decode) -> Result:
        ids = self._prompt(order.context)
        arrivals = Arrivals()
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=order.tokens + 1,
            min_new_tokens=order.tokens + 1,
            do_sample=False,
            pad_token_id=2,
            streamer=arrivals,
        )
        assert len(arrivals.times) == order.tokens + 2
        return Result(arrivals.times[-1] - arrivals.times[1], order.tokens)

    def _prefill(self, order: Prefill) -> Result:
        ids = self._prompt(order.tokens)
        began = time.perf_counter()
        output = self._model(ids, use_cache=True, logits_to_keep=1)
        output.logits[0, -1].argmax().item()
        return Result(time.perf_counter() - began, order.tokens)


def main() -> None:
    """Load, then serve until stdin ends."""
    path, threads = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    baseline = Baseline(path, torch.bfloat16)
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    serve(Ready(psutil.Process().memory_info().rss, version), baseline.carry_out)


if __name__ == "__main__":
    main()
