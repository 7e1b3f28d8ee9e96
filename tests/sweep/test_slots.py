"""What each job of a sweep gets of the machine."""

import dataclasses

import pytest

from spinal_repro.config.schema import RuntimeConfig
from spinal_repro.sweep.slots import share, visible_devices

AUTO = RuntimeConfig()


def runtime(**settings: object) -> RuntimeConfig:
    return dataclasses.replace(AUTO, **settings)


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("count", [1, 2, 5, 64, 1000])
def test_on_a_cpu_all_cores_work_and_none_twice(cores, count):
    shares = share(count, AUTO, cores=cores)
    assert len(shares.slots) == min(cores, count)
    busy = len(shares.slots) * shares.threads
    assert cores - len(shares.slots) < busy <= cores
    assert set(shares.slots) == {None}


def test_threads_that_are_asked_for_say_how_many_jobs_fit():
    assert len(share(9, runtime(threads=4), cores=8).slots) == 2
    assert share(9, runtime(threads=4), cores=8).threads == 4
    assert len(share(9, runtime(threads=4), cores=2).slots) == 1  # as asked, though there are two


def test_jobs_that_are_asked_for_divide_the_cores():
    assert share(9, runtime(jobs=1), cores=8) == share(1, AUTO, cores=8)
    assert share(9, runtime(jobs=4), cores=8).threads == 2
    assert share(9, runtime(jobs=4), cores=2).threads == 1
    assert len(share(3, runtime(jobs=4), cores=8).slots) == 3


def test_each_job_is_handed_a_device_and_some_share_one():
    devices = ("0", "1", "2")
    assert share(9, AUTO, cores=8, devices=devices).slots == devices
    assert share(2, AUTO, cores=8, devices=devices).slots == ("0", "1")
    shared = share(99, runtime(jobs=7), cores=14, devices=devices)
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


def test_without_devices_there_are_none():
    assert visible_devices(0, {"CUDA_VISIBLE_DEVICES": ""}) == ()
