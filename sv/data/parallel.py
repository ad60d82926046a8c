"""Work on a long list in chunks, by several processes, with the results in order.

The result of a chunk must depend on the chunk alone: then the output is the same for any number
of processes.
"""

import itertools
import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

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
        nj: Processes. With one, or for a list of one chunk, none is started.
    """
    chunks = split_chunks(items)
    head = list(itertools.islice(chunks, 2))
    chunks = itertools.chain(head, chunks)
    if nj == 1 or len(head) < 2:
        yield from (function(chunk, shared) for chunk in chunks)
        return
    # Not fork: this process may run threads (pyarrow, OpenMP), whose locks a fork would copy.
    with multiprocessing.get_context("spawn").Pool(nj, _keep_shared, (shared,)) as pool:
        # Pool.imap would read the whole list into its queue.
        yield from run_ahead(
            lambda chunk: pool.apply_async(_apply, (function, chunk)).get, chunks, 2 * nj
        )


def run_ahead(
    start: Callable[[Item], Callable[[], Result]], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Start work on ``ahead`` items more than the consumer has taken; yield the results in order.

    ``start`` starts the work on an item and returns a function that waits for its result.
    """
    waiting: deque[Callable[[], Result]] = deque()
    for item in items:
        waiting.append(start(item))
        if len(waiting) > ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


_shared: Any = None  # of a worker process


def _keep_shared(shared: Any) -> None:
    global _shared  # noqa: PLW0603
    _shared = shared


def _apply(function: Callable[[list[Item], Any], Result], chunk: list[Item]) -> Result:
    return function(chunk, _shared)


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
