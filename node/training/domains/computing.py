"""Python to write: MBPP (Austin et al., arXiv 2108.07732, CC BY 4.0), standard library (PSF).

Knows both sources' splits; must not know training.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from node.training.domains.domain import Domain
from node.training.domains.functions import Function, library_functions
from node.training.domains.sets import CodingTask, bucket_of, read_set, without_repeats
from node.training.examples import Example

_TEST_MARK = "\nassert "


def computing_domain(folder: Path, *, with_undocumented: bool = True) -> Domain:
    """MBPP's test part with the first assertion in the prompt, and documented functions of the
    modules with sha1(name) % 10 == 0.

    `with_undocumented` adds functions without documentation to train. The library is that of this
    interpreter, or what lies in `folder` under `cpython`.
    """
    tasks = read_set(folder, "mbpp", CodingTask)
    library = folder / "cpython"
    functions = library_functions(library if library.is_dir() else None)
    documented = [one for one in functions if one.is_documented]
    test = [_task(task) for task in tasks if task.split == "test"]
    test += [_function(one) for one in documented if _is_test(one)]
    validation = [_task(task) for task in tasks if _is_kept_apart(task)]
    validation += [_function(one) for one in documented if _is_validation(one)]
    learnt = [_task(task) for task in tasks if task.split != "test" and not _is_kept_apart(task)]
    source = functions if with_undocumented else documented
    learnt += [_function(one) for one in source if not _is_test(one) and not _is_validation(one)]
    train = without_repeats(learnt, [*test, *validation])
    return Domain("computing", tuple(train), tuple(validation), tuple(test), vary=without_assertion)


def _is_kept_apart(task: CodingTask) -> bool:
    return task.split == "val" and task.id % 3 == 0


def _is_test(function: Function) -> bool:
    return bucket_of(function.module, 10) == 0


def _is_validation(function: Function) -> bool:
    return bucket_of(function.module, 40) == 1


def _task(task: CodingTask) -> Example:
    return Example(f"{task.q}\n{task.tests[0]}", task.code.replace("\r\n", "\n"), "mbpp")


def _function(function: Function) -> Example:
    prompt = f"Write the body of this Python function.\n\n{function.head}"
    source = "stdlib" if function.is_documented else "stdlib-undocumented"
    return Example(prompt, function.body, source)


def without_assertion(example: Example, rng: np.random.Generator) -> Example:
    """Some tasks of MBPP as people type them, without the assertion."""
    if example.source != "mbpp" or rng.random() >= 0.25:
        return example
    return replace(example, prompt=example.prompt.partition(_TEST_MARK)[0])
