"""How the `tokenizers` library fails, turned into errors of ours.

Knows the classes that it raises; must not know what was asked of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from protocols.errors import Unsupported


@contextmanager
def no_panic() -> Iterator[None]:
    """Around calls of the `tokenizers` library: its failures become `Unsupported`.

    A tokenizer file that contradicts itself is noticed only when some text meets the contradiction.
    The library then raises a bare `Exception`, or panics; the panic is a `BaseException`, which
    would end the whole node.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise Unsupported(
                f"The model's tokenizer cannot take this text: {str(error)[:200]}"
            ) from error
        raise
