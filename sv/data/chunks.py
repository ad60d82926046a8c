"""Work on a long list in chunks, by several processes, with the results in order.

What is made from a chunk must depend on the chunk alone: then the output is the same for any
number of processes.
"""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

CHUNK = 1000  # items: a tenth of a second of work, some seconds where audio is decoded

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_chunks(
    function: Callable[[list[Item]], Result],
    items: Iterable[Item],
    *,
    nj: int = 1,
    setup: Callable[..., None] | None = None,
    setup_args: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Apply a function to chunks of `CHUNK` items.

    Args:
        function: Of a module's top level; takes a chunk.
        items: Anything that can be pickled.
        nj: Processes. With one, or for a list of one chunk, none is started.
        setup: Called once in each process before its first chunk.
        setup_args: Its arguments.

    Yields:
        The results in the order of the chunks.
    """
    chunks = split_chunks(items)
    head = list(itertools.islice(chunks, 2))
    chunks = itertools.chain(head, chunks)
    if nj == 1 or len(head) < 2:
        if setup is not None:
            setup(*setup_args)
        yield from map(function, chunks)
        return
    # Not fork: this process may run threads (pyarrow, OpenMP), whose locks a fork would copy.
    with multiprocessing.get_context("spawn").Pool(nj, setup, setup_args) as pool:
        # A few chunks ahead of the consumer; Pool.imap would read the whole list into its queue.
        ahead = deque(
            pool.apply_async(function, (chunk,)) for chunk in itertools.islice(chunks, 2 * nj)
        )
        while ahead:
            yield ahead.popleft().get()
            ahead.extend(
                pool.apply_async(function, (chunk,)) for chunk in itertools.islice(chunks, 1)
            )


def split_chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Split into lists of `CHUNK` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk
