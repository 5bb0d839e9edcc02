"""Independent calculations side by side, each on one core."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def side_by_side(tasks: Sequence[Callable[[], None]], *, at_most: int) -> None:
    """Run tasks in up to `at_most` threads, or one after the other if that is 1.

    Side by side, numpy's linear algebra is held to one thread: products of a few columns are too small to share between
    cores, and waiting for each other costs more than it gains, ten times as much on a machine that others use too.
    """
    threads = min(at_most, len(tasks), os.cpu_count() or 1)
    if threads <= 1:
        for task in tasks:
            task()
        return
    from threadpoolctl import threadpool_limits  # not there where bundles are only used

    pool = ThreadPoolExecutor(threads)
    with threadpool_limits(1, user_api="blas"):
        try:
            for result in [pool.submit(task) for task in tasks]:
                result.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error, or Ctrl-C, none is begun
