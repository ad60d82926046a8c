"""Work on a long list in chunks, by several processes, with the results in order.

The result of a chunk must depend on the chunk alone: then the output is the same for any number
of processes.
"""

import itertools
import logging
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, TypeVar

from sv.system import end_with_parent

CHUNK = 1000  # items: a tenth of a second of work, some seconds where audio is decoded
PROGRESS_S = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_chunks(
    function: Callable[[list[Item], Any], Result], items: Iterable[Item], shared: Any, *, nj: int
) -> Iterator[Result]:
    """Apply a function to chunks of `CHUNK` items; yield the results in the order of the chunks.

    Args:
        function: Of a module's top level; takes a chunk and ``shared``.
        items: Anything that can be pickled.
        shared: The second argument of every call; sent once to each process.
        nj: Processes, at most one a core. With one, or for a list of one chunk, none is started.
    """
    nj = min(nj, os.cpu_count() or 1)
    chunks = split_chunks(items)
    head = list(itertools.islice(chunks, 2))
    chunks = itertools.chain(head, chunks)
    if nj == 1 or len(head) < 2:
        yield from (function(chunk, shared) for chunk in chunks)
        return
    # Not fork: this process may run threads (pyarrow, OpenMP), whose locks a fork would copy.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(nj, spawn, _start_worker, (function, shared)) as pool:
        yield from map_ahead(pool, _apply, chunks, 2 * nj)


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield the results in order; ``ahead`` items more than the consumer has taken are begun.

    ``pool.map`` would begin all of them, and hold their results.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


_work: Any = None  # of a worker process: the function and its second argument


def _start_worker(*work: Any) -> None:
    global _work  # noqa: PLW0603
    end_with_parent()
    _work = work


def _apply(chunk: list) -> Any:
    function, shared = _work
    return function(chunk, shared)


def split_chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Split into lists of `CHUNK` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk


def log_progress(
    results: Iterable[Result],
    name: str,
    *,
    total: int | None = None,
    count: Callable[[Result], int] = lambda _: 1,
) -> Iterator[Result]:
    """Pass results on, and log every `PROGRESS_S` seconds how many utterances they cover.

    ``count`` returns the utterances of a result; ``total`` is of all, where it is known, and
    ``name`` begins the message.
    """
    done = 0
    started = last = time.monotonic()
    of_total = "" if total is None else f" of {total}"
    for result in results:
        yield result
        done += count(result)
        now = time.monotonic()
        if now - last >= PROGRESS_S or done == total:
            rate = done / (now - started)
            logging.info("%s: %d%s utterances, %.1f utterances/s", name, done, of_total, rate)
            last = now
