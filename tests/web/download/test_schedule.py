from libraries.web.download.outcomes import Job
from libraries.web.download.schedule import Schedule


def startable(plan: Schedule, now: float) -> list[str]:
    jobs = []
    while job := plan.next(now):
        jobs.append(job.url)
    return jobs


def test_a_few_of_each_host_at_once_in_order() -> None:
    plan = Schedule(per_host=2)
    jobs = [Job(f"{host}{i}", host) for i in range(3) for host in "ab"]
    for job in jobs:
        plan.add(job)
    assert startable(plan, 1.0) == ["a0", "b0", "a1", "b1"]
    plan.done(jobs[0])
    assert startable(plan, 1.0) == ["a2"]
    plan.done(jobs[2])
    assert startable(plan, 1.0) == []
    plan.done(jobs[1])
    assert startable(plan, 1.0) == ["b2"]
    assert plan.seconds_to_next(1.0) == float("inf")


def test_a_job_waits_for_its_time_without_holding_up_others() -> None:
    plan = Schedule(per_host=1)
    plan.add(Job("late", "a"), at=10.0)
    plan.add(Job("now", "a"))
    assert startable(plan, 5.0) == ["now"]
    assert plan.seconds_to_next(5.0) == 5.0
    assert startable(plan, 10.0) == []  # its host is busy
    plan.done(Job("now", "a"))
    assert plan.seconds_to_next(11.0) == 0.0
    assert startable(plan, 11.0) == ["late"]


def test_a_host_that_asks_for_a_pause_gets_it() -> None:
    plan = Schedule(per_host=5)
    for url in ("a0", "a1", "b0"):
        plan.add(Job(url, url[0]))
    plan.pause("a", until=8.0)
    plan.pause("a", until=3.0)  # a shorter one does not end a longer one
    assert startable(plan, 1.0) == ["b0"]
    assert plan.seconds_to_next(1.0) == 7.0
    assert startable(plan, 8.0) == ["a0", "a1"]
