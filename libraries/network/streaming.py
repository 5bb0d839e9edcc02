"""Work on a stream of items in threads: in order, within bounds, and gone when the consumer goes."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from libraries.base.errors import ImageError

T = TypeVar("T")
R = TypeVar("R")
Pixels = npt.NDArray[np.uint8]


def ordered_map(function: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int) -> Generator[tuple[T, R]]:
    """Yield (item, function(item)) in the order of `items`, computed by `workers` threads.

    At most `ahead` items are taken from `items` and not yet yielded: memory stays bounded however long the stream.
    An exception of `function` is raised in its item's place. However the iteration ends (exhausted, an exception,
    Ctrl-C, the generator closed), waiting work is cancelled, and the threads have ended when control returns.
    """
    items = iter(items)
    pending: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    try:
        pending.extend((item, pool.submit(function, item)) for item in itertools.islice(items, ahead))
        while pending:
            item, future = pending.popleft()
            result = future.result()
            pending.extend((item, pool.submit(function, item)) for item in itertools.islice(items, 1))
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def checked_load(load: Callable[[T], Pixels], item: T, size: int) -> Pixels:
    """The image of `item`, uint8 [size, size, 3], C-contiguous; raises ValueError when `load` gives anything else."""
    image = load(item)
    if image.shape != (size, size, 3) or image.dtype != np.uint8:
        raise ValueError(f"{item}: the network takes uint8 [{size}, {size}, 3], got {image.dtype} {list(image.shape)}")
    return np.ascontiguousarray(image)


def load_or_error(load: Callable[[T], Pixels], item: T, size: int) -> Pixels | ImageError:
    """The image of `item` as above, or what is wrong with it."""
    try:
        return checked_load(load, item, size)
    except ImageError as error:
        return error
