"""What each job of a sweep gets of the machine."""

import dataclasses

import pytest

from spinal_repro.config.schema import RuntimeConfig
from spinal_repro.sweep.runner import share, visible_devices

AUTO = RuntimeConfig()


@pytest.mark.parametrize("cores", [1, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_on_a_cpu_all_cores_work_and_none_twice(cores, count):
    shares = share(count, AUTO, cores=cores)
    assert len(shares.slots) == min(cores, count)
    busy = len(shares.slots) * shares.threads
    assert cores - len(shares.slots) < busy <= cores
    assert set(shares.slots) == {None}


@pytest.mark.parametrize(
    ("count", "settings", "cores", "jobs", "threads"),
    [
        (9, {"threads": 4}, 8, 2, 4),
        (9, {"threads": 4}, 2, 1, 4),  # as asked, though there are two
        (9, {"jobs": 1}, 8, 1, 8),
        (9, {"jobs": 4}, 8, 4, 2),
        (9, {"jobs": 4}, 2, 4, 1),
        (3, {"jobs": 4}, 8, 3, 2),
    ],
)
def test_threads_or_jobs_that_are_asked_for(count, settings, cores, jobs, threads):
    shares = share(count, dataclasses.replace(AUTO, **settings), cores=cores)
    assert (len(shares.slots), shares.threads) == (jobs, threads)


def test_each_job_is_handed_a_device_and_some_share_one():
    devices = ("0", "1", "2")
    assert share(9, AUTO, cores=8, devices=devices).slots == devices
    assert share(2, AUTO, cores=8, devices=devices).slots == ("0", "1")
    shared = share(99, dataclasses.replace(AUTO, jobs=7), cores=14, devices=devices)
    assert sorted(map(shared.slots.count, devices)) == [2, 2, 3]
    assert shared.threads == 2


@pytest.mark.parametrize(
    "said, names",
    [
        ({}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "5, 7"}, ("5", "7")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-ab,GPU-cd"}, ("GPU-ab", "GPU-cd")),
    ],
)
def test_devices_have_the_names_that_the_machine_gave_them(said, names):
    assert visible_devices(2, said) == names
