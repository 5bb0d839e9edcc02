"""The bounded queue: requests are accepted whole or refused quickly, time out, and never leak waiting jobs."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from libraries.service.problems import Problem
from libraries.service.workers import Workers


class Gate:
    """Work that does not end before it is released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.done: list[int] = []

    def work(self, item: int) -> int:
        self.begun.release()
        assert self.open.wait(30)
        self.done.append(item)
        return -item


@asynccontextmanager
async def workers(
    *, threads: int = 2, most_waiting: int = 1, seconds: float = 1.0, **options: Any
) -> AsyncIterator[Workers]:
    pool = Workers(threads=threads, most_waiting=most_waiting, seconds=seconds, **options)
    yield pool
    await asyncio.to_thread(pool.close)
    assert pool.waiting == 0


async def begun(gate: Gate, count: int) -> None:
    """Wait until this many jobs have begun."""
    for _ in range(count):
        assert await asyncio.to_thread(gate.begun.acquire, timeout=30)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_results_come_in_order_with_the_time_they_waited() -> None:
    async def test() -> None:
        async with workers(threads=4) as pool:
            done = await pool.run(lambda n: n * n, range(50))
            assert [result for result, _ in done] == [n * n for n in range(50)]
            assert all(0 <= waited < 30 for _, waited in done)

    run(test())


def test_requests_that_would_wait_too_long_are_refused_at_once_and_the_others_answered() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers() as pool:
            accepted = [asyncio.create_task(pool.run(gate.work, [i])) for i in range(3)]
            await begun(gate, 2)
            assert pool.waiting == 1
            before = time.perf_counter()
            for _ in range(100):
                with pytest.raises(Problem) as refused:
                    await pool.run(gate.work, [99])
                assert (refused.value.status, refused.value.retry_after) == (503, 1)
            assert time.perf_counter() - before < 0.5
            assert pool.waiting == 1
            gate.open.set()
            assert [await task for task in accepted] == [[(-i, pytest.approx(0, abs=30))] for i in range(3)]
        assert sorted(gate.done) == [0, 1, 2]

    run(test())


def test_nothing_is_refused_while_a_thread_is_free() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers(threads=4, most_waiting=0) as pool:
            tasks = [asyncio.create_task(pool.run(gate.work, [i])) for i in range(4)]
            await begun(gate, 4)
            gate.open.set()
            assert [result for task in tasks for result, _ in await task] == [0, -1, -2, -3]

    run(test())


def test_a_request_is_accepted_whole_whatever_its_size_and_others_wait_for_its_turns() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers(most_waiting=4, seconds=60.0) as pool:
            many = asyncio.create_task(pool.run(gate.work, range(40)))
            await begun(gate, 2)
            assert pool.waiting == 38
            pool.check()
            pool.check(2)
            for count, others in ((3, 4), (40, 38), (100, 38)):
                with pytest.raises(Problem) as refused:
                    await pool.run(gate.work, range(count))
                assert refused.value.retry_after == others * 60 / 2
            gate.open.set()
            assert [result for result, _ in await many] == [-i for i in range(40)]

    run(test())


def test_requests_take_turns_of_as_many_images_as_there_are_threads() -> None:
    async def test() -> None:
        gate, other_thread = Gate(), Gate()
        async with workers(threads=2, most_waiting=100) as pool:
            tasks = [asyncio.create_task(pool.run(other_thread.work, [0]))]
            await begun(other_thread, 1)
            tasks += [asyncio.create_task(pool.run(gate.work, range(100, 132)))]
            await begun(gate, 1)
            tasks += [asyncio.create_task(pool.run(gate.work, items)) for items in ([1], range(200, 204), [2])]
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(*tasks[1:])
            other_thread.open.set()
            await tasks[0]
        assert gate.done == [100, 101, 1, 200, 201, 2, 102, 103, 202, 203, *range(104, 132)]

    run(test())


def test_a_large_request_neither_starves_others_nor_is_starved_by_them() -> None:
    async def test() -> None:
        order: list[str] = []

        def work(name: str) -> None:
            while (
                pool.waiting < 34 - order.count("M") and not many.done()
            ):  # until the clients that were answered have sent another request
                time.sleep(0)
            order.append(name)

        async def client(name: str) -> None:
            while not many.done():
                await pool.run(work, [name])

        async with workers(threads=1, most_waiting=100) as pool:
            many = asyncio.create_task(pool.run(work, "M" * 32))
            await asyncio.gather(many, *map(client, "abc"))
        turns = "".join(order)
        assert turns.count("M") == 32
        assert all(2 <= len(between) == len({*between}) for between in turns.split("M")[1:-1])
        for name in "abc":  # one may be running when the client arrives, another has its turn before
            assert all(between.count("M") <= 2 for between in turns.split(name))

    run(test())


def test_a_timeout_drops_what_has_not_begun() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers() as pool:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(gate.work, range(10)), 0.05)
            assert pool.waiting == 0
            gate.open.set()
        assert len(gate.done) <= 2  # those that had begun

    run(test())


def test_a_cancelled_request_drops_what_has_not_begun() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers() as pool:
            task = asyncio.create_task(pool.run(gate.work, range(10)))
            await begun(gate, 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool.waiting == 0
            gate.open.set()
        assert len(gate.done) == 2

    run(test())


def test_a_cancelled_request_takes_no_further_turn() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers(threads=1, most_waiting=100) as pool:
            tasks = [asyncio.create_task(pool.run(gate.work, [1]))]
            await begun(gate, 1)
            tasks += [asyncio.create_task(pool.run(gate.work, items)) for items in (range(100, 132), [2, 3], [4])]
            await asyncio.sleep(0)
            assert pool.waiting == 35
            tasks.pop(1).cancel()
            while pool.waiting != 3:
                await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(*tasks)
        assert gate.done == [1, 2, 4, 3]

    run(test())


def test_an_error_in_the_work_is_raised_and_drops_the_rest() -> None:
    async def test() -> None:
        gate = Gate()

        def work(item: int) -> int:
            if item == 0:
                raise ZeroDivisionError
            return gate.work(item)

        async with workers() as pool:
            with pytest.raises(ZeroDivisionError):
                await pool.run(work, range(10))
            assert pool.waiting == 0
            gate.open.set()
            assert await pool.run(lambda n: n, [7]) == [(7, pytest.approx(0, abs=30))]

    run(test())


def test_the_bound_follows_the_time_that_jobs_take_even_abandoned_ones() -> None:
    async def test() -> None:
        async with workers(threads=1, seconds=100.0) as pool:
            await pool.run(lambda n: n, range(200))
            assert pool.seconds < 1  # 100 x 0.95^200
            gate, before = Gate(), pool.seconds
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.run(gate.work, [1]), 0.05)
            gate.open.set()
            await pool.run(lambda n: n, [2])  # after the first has ended
            assert pool.seconds > before

    run(test())


def test_waiting_is_zero_after_thousands_of_requests_of_all_outcomes() -> None:
    async def test() -> None:
        def work(item: int) -> int:
            if item % 7 == 0:
                raise KeyError(item)
            return item

        async def request(pool: Workers, number: int) -> None:
            with suppress(TimeoutError, KeyError):
                async with asyncio.timeout(1e-4 if number % 3 == 0 else 30):
                    await pool.run(work, range(number, number + 5))

        async with workers(threads=4, most_waiting=10**6) as pool:
            tasks = [asyncio.create_task(request(pool, number)) for number in range(2000)]
            for task in tasks[::5]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pool.run(lambda n: n, range(8))
            assert pool.waiting == 0

    run(test())


# Memory


def test_large_jobs_wait_for_memory_in_order_and_small_ones_overtake_them() -> None:
    async def test() -> None:
        gate, small = Gate(), 10
        async with workers(threads=2, most_waiting=100, memory=100 * 16) as pool:
            large = [
                asyncio.create_task(pool.run(gate.work, [i], memory=lambda i: {1: 1000, 2: 900, 3: 500, 4: 5000}[i]))
                for i in (1, 2, 3, 4)
            ]
            await begun(gate, 1)
            passed = await pool.run(lambda n: n * n, range(5), memory=lambda n: small)
            assert [result for result, _ in passed] == [0, 1, 4, 9, 16]
            assert (pool.at_work, pool.waiting) == (1, 3)
            large[1].cancel()  # now there is memory for the third
            await begun(gate, 1)
            gate.open.set()
            for task, number in ((large[0], 1), (large[2], 3), (large[3], 4)):  # too large even alone, so it runs alone
                assert (await task)[0][0] == -number
            assert gate.done[-1] == 4 and 2 not in gate.done

    run(test())


def test_large_jobs_of_a_request_let_others_take_turns_and_its_small_ones_overtake() -> None:
    async def test() -> None:
        gate, small = Gate(), 200
        async with workers(threads=2, most_waiting=100, memory=1000) as pool:

            def memory(item: int) -> int:
                return 10 if item >= small else 700

            many = asyncio.create_task(pool.run(gate.work, range(32), memory=memory))
            await begun(gate, 1)
            other = asyncio.create_task(pool.run(gate.work, [100], memory=memory))
            mixed = asyncio.create_task(pool.run(gate.work, [101, 102, small], memory=memory))
            await begun(gate, 1)  # the small one
            assert (pool.at_work, pool.waiting) == (2, 34)
            gate.open.set()
            await asyncio.gather(many, other, mixed)
        large = [item for item in gate.done if item < small]
        assert 100 in large[:4] and {101, 102} < {*large[:10]}

    run(test())


def test_a_large_job_of_a_request_that_ended_while_it_was_measured_does_not_wait() -> None:
    async def test() -> None:
        gate, looked = Gate(), threading.Event()

        def memory(item: int) -> int:
            assert looked.wait(30)
            return 1000

        async with workers(threads=1, memory=1000) as pool:
            task = asyncio.create_task(pool.run(gate.work, [1], memory=memory))
            while not pool.at_work:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            looked.set()
            assert await pool.run(lambda n: n, [7]) == [(7, pytest.approx(0, abs=30))]
            assert pool.waiting == 0
        assert gate.done == []

    run(test())


def test_quick_work_goes_first_and_is_never_refused() -> None:
    async def test() -> None:
        gate, order = Gate(), []
        async with workers(threads=1, most_waiting=1) as pool:
            first = asyncio.create_task(pool.run(gate.work, [0]))
            await begun(gate, 1)
            second = asyncio.create_task(pool.run(order.append, ["image"]))
            quick = asyncio.create_task(pool.run_at_once(order.append, "body", memory=lambda item: 0))
            await asyncio.sleep(0)
            gate.open.set()
            await asyncio.gather(first, second, quick)
            assert order == ["body", "image"]

    run(test())


# Threads that are stuck


def test_stuck_threads_are_replaced_and_later_there_are_as_many_as_before() -> None:
    async def test() -> None:
        gate, before = Gate(), threads_of_workers()
        async with workers(threads=2, most_waiting=0, patience=0.0) as pool:
            stuck = [asyncio.create_task(pool.run(gate.work, [i])) for i in range(2)]
            await begun(gate, 2)
            assert not pool.are_stuck
            assert [result for result, _ in await pool.run(lambda n: n, range(5))] == list(range(5))
            assert threads_of_workers() == before + 4
            gate.open.set()
            await asyncio.gather(*stuck)
            while threads_of_workers() > before + 2:
                await asyncio.sleep(0)
            assert [result for result, _ in await pool.run(lambda n: n, range(5))] == list(range(5))

    run(test())


def test_a_large_job_does_not_wait_for_a_thread_that_ends() -> None:
    async def test() -> None:
        looked = threading.Event()
        async with workers(threads=1, most_waiting=100, patience=0.0, memory=1000) as pool:
            large = asyncio.create_task(pool.run(lambda n: n, [1], memory=lambda n: 1000 * looked.wait(30)))
            while not pool.at_work:
                await asyncio.sleep(0)
            assert not pool.are_stuck
            await pool.run(lambda n: n, [2])  # by the thread that replaced the first one, and which then waits for more
            looked.set()
            assert (await asyncio.wait_for(large, 30))[0][0] == 1

    run(test())


def test_requests_are_refused_when_all_threads_and_their_replacements_are_stuck() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers(threads=1, most_waiting=100, patience=0.0) as pool:
            first = asyncio.create_task(pool.run(gate.work, [0]))
            await begun(gate, 1)
            assert not pool.are_stuck
            second = asyncio.create_task(pool.run(gate.work, [1]))
            await begun(gate, 1)
            assert pool.are_stuck
            with pytest.raises(Problem) as refused:
                await pool.run(gate.work, [2])
            assert (refused.value.status, refused.value.retry_after) == (503, 10)
            gate.open.set()
            await asyncio.gather(first, second)
            while pool.are_stuck:
                await asyncio.sleep(0)

    run(test())


def test_the_expected_wait_counts_how_long_running_jobs_have_taken() -> None:
    async def test() -> None:
        gate = Gate()
        async with workers(threads=1, most_waiting=10, seconds=0.0) as pool:
            tasks = [asyncio.create_task(pool.run(gate.work, [i])) for i in range(3)]
            await begun(gate, 1)
            before = pool.expected_wait()
            await asyncio.sleep(0.01)
            assert pool.expected_wait() > before
            gate.open.set()
            await asyncio.gather(*tasks)

    run(test())


def test_closing_does_not_wait_for_stuck_threads() -> None:
    async def test() -> None:
        gate = Gate()
        pool = Workers(threads=1, most_waiting=10)
        task = asyncio.create_task(pool.run(gate.work, range(5)))
        await begun(gate, 1)
        await asyncio.to_thread(pool.close, seconds=0.01)
        assert (pool.at_work, pool.waiting) == (1, 0)
        task.cancel()
        gate.open.set()

    run(test())


def threads_of_workers() -> int:
    return sum(thread.name == "worker" for thread in threading.enumerate())
