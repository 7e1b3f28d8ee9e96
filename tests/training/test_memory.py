"""Large tensors come from memory that is there already."""

import platform
import subprocess
import sys

import pytest

CHILD = """
import resource, sys, torch
from spinal_repro.training.device import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
counts = []
for _ in range(20):  # the heap grows at first, until the freed blocks suffice
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = torch.ones(16 * 2**20)  # 64 MiB
    del x
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(counts[10:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_tensors_cost_no_page_faults_after_a_while():
    def faults(mode: str) -> int:
        command = [sys.executable, "-c", CHILD, mode]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    as_it_comes = faults("as it comes")
    if as_it_comes == 0:
        pytest.skip("this system counts no page faults")
    assert as_it_comes >= 32  # 16,384 pages of 4 KiB, or 32 of 2 MiB
    assert faults("kept") < 32
