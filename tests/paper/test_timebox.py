"""Which run comes next: order, and closed forms of what fits."""

import pytest

from spinal_repro.paper.timebox import DEADLINE, PUT_OFF, Job, TimeBox, in_order


def simulated(jobs: list[Job], seconds: float, cost: dict[str, float], start: float = 0.0) -> float:
    """Run jobs of ``start`` seconds and ``cost`` an epoch; return when the work ends."""
    box, now = TimeBox(jobs, seconds), 0.0
    while (job := box.next(now)) is not None:
        box.begin(now)
        now += start
        job.state = "done"
        while job.done < job.epochs:
            if now + cost[job.cell] > seconds:
                now, job.state = seconds, "stopped"
                break
            now += cost[job.cell]
            why = box.epoch_ended(job, job.done + 1, now)
            if why and job.done < job.epochs:
                job.state = "" if why == PUT_OFF else "stopped"
                break
        box.end(job, now)
    return now


def outcomes(jobs: list[Job]) -> list[tuple[str, int]]:
    return [(job.state, job.done) for job in jobs]


def test_all_heads_have_one_seed_before_the_next():
    cells = {"b/spinal": "b/fc", "a/fc": None, "b/fc": None, "a/spinal": "a/fc", "c": "not chosen"}
    assert in_order({**cells, "b/wide": "b/fc"}, [3, 1]) == [
        *(("b/spinal", 3), ("b/fc", 3), ("b/wide", 3)),
        *(("b/spinal", 1), ("b/fc", 1), ("b/wide", 1)),
        *(("a/fc", 3), ("a/spinal", 3), ("a/fc", 1), ("a/spinal", 1)),
        *(("c", 3), ("c", 1)),
    ]


@pytest.mark.parametrize("seconds", [100, 130, 199, 200, 1000])
def test_as_many_runs_are_done_as_fit_and_none_is_cut_off(seconds):
    """Runs of 10 epochs of 2 s after 5 s of start: 25 s each, known from the first one on."""
    jobs = [Job("a", seed, 10) for seed in range(12)]
    simulated(jobs, seconds, {"a": 2.0}, start=5.0)
    done = min(12, seconds // 25)
    assert outcomes(jobs) == [("done", 10)] * done + [("", 0)] * (12 - done)


def test_a_later_run_that_fits_is_taken():
    jobs = [Job("long", 0, 100), Job("short", 0, 10), Job("long", 1, 100), Job("short", 1, 10)]
    box = TimeBox(jobs, 100.0)
    box.learn("long", [50.0, 2.0, 2.0])
    box.learn("short", [3.0])
    assert box.needs(jobs[0]) == 200.0 and box.next(0.0) is jobs[1]
    jobs[1].state = "done"
    assert box.next(70.0) is jobs[3] and box.next(70.1) is jobs[0], "better a part than nothing"


def test_a_run_that_turns_out_too_long_gives_way_to_those_that_fit():
    jobs = [Job("short", 0, 10), Job("long", 0, 100), Job("short", 1, 10), Job("long", 1, 100)]
    assert simulated(jobs, 100.0, {"short": 1.0, "long": 5.0}) == 100.0
    assert outcomes(jobs) == [("done", 10), ("stopped", (100 - 20) // 5), ("done", 10), ("", 0)]
    jobs = [Job("long", 0, 100), Job("short", 0, 10)]
    assert simulated(jobs, 100.0, {"short": 1.0, "long": 5.0}) == 100.0
    assert outcomes(jobs) == [("stopped", (100 - 10) // 5), ("done", 10)]


def test_no_epoch_is_begun_that_does_not_fit():
    """A part of an epoch is lost."""
    jobs = [Job("short", 0, 4), Job("long", 0, 100)]
    assert simulated(jobs, 100.0, {"short": 1.0, "long": 30.0}) == 4 + 3 * 30.0
    assert outcomes(jobs) == [("done", 4), ("stopped", 3)]
    box = TimeBox(jobs[1:], 100.0, trained=True)
    jobs[1].state = ""
    assert box.next(99.0) is jobs[1], "nothing is known of its epochs"
    box.learn("long", [40.0, 30.0])
    assert box.next(70.0) is jobs[1] and box.next(70.1) is None
    box.begin(0.0)
    assert box.epoch_ended(jobs[1], 4, 70.0) == "" and box.epoch_ended(jobs[1], 5, 99.0) == DEADLINE


@pytest.mark.parametrize("seconds", [6.0, 11.0, 40.0])
def test_repeated_often_enough_everything_is_done(seconds):
    jobs = [Job(cell, seed, 10) for seed in range(3) for cell in ("a", "b")]
    while any(job.state != "done" for job in jobs):
        before = sum(job.done for job in jobs)
        for job in jobs:
            job.state = "done" if job.state == "done" else ""
        simulated(jobs, seconds, {"a": 5.0, "b": 2.0})
        assert sum(job.done for job in jobs) > before
    assert all(job.done == 10 for job in jobs)
