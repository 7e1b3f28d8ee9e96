"""Device, threads, precision, compiling and memory of a run."""

import platform
import subprocess
import sys

import pytest
import torch
from helpers.variety import small
from torch import nn

from spinal_repro.errors import UserError
from spinal_repro.models.heads import SpinalHead
from spinal_repro.training import run as run_module
from spinal_repro.training.device import (
    backend_settings,
    compile_model,
    resolve_device,
    set_threads,
)

CPU = torch.device("cpu")


def test_a_compiled_model_keeps_the_names_of_its_weights(monkeypatch):
    monkeypatch.setenv("CXX", "true")  # nothing is compiled here
    compiled, compile_it = [], nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda m, **how: (compiled.append(m), compile_it(m, **how))
    )
    model = SpinalHead(8, 3, width=4, layers=2)
    names = list(model.state_dict())
    compile_model(model, CPU)
    assert compiled == [model], "calling it must run the compiled one"
    assert list(model.state_dict()) == names


def test_a_missing_compiler_is_reported_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_model(nn.Linear(2, 2), CPU)


@pytest.mark.parametrize("name", ["cuda:77", "gpu", "cpu:x"])
def test_devices_that_are_missing(name):
    with pytest.raises(UserError, match=f"no device {name}: PyTorch finds .* 1 cpu"):
        resolve_device(name)


def test_threads(tmp_path):
    torch.set_num_threads(2)
    assert set_threads(None, tmp_path) == 2
    assert set_threads(1, tmp_path) == torch.get_num_threads() == 1
    for damaged in (b"\xff\xfe", b"runtime: {threads: x}", b"runtime: {threads: null}", b"[1"):
        (tmp_path / "config.yaml").write_bytes(damaged)
        assert set_threads(None, tmp_path) == 1


class Unpooling(nn.Module):
    """Has no deterministic implementation in PyTorch, on any device."""

    def forward(self, images):
        pooled, where = nn.functional.max_pool2d(images, 2, return_indices=True)
        return images + nn.functional.max_unpool2d(pooled, where, 2)


def test_an_operation_that_is_not_deterministic_is_refused(tmp_path, monkeypatch):
    build = run_module.build_run

    def watched(*given):
        assert torch.are_deterministic_algorithms_enabled()
        setup = build(*given)
        setup.run.model.backbone = nn.Sequential(Unpooling(), setup.run.model.backbone)
        return setup

    monkeypatch.setattr(run_module, "build_run", watched)
    with pytest.raises(UserError, match="deterministic=false"):
        run_module.run(small(tmp_path, "runtime.deterministic=true"))
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_on_mps_is_refused():
    mps = torch.device("mps")
    with pytest.raises(UserError, match="on mps"), backend_settings(mps, "fp32", True):
        pass


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_backend_settings_hold_for_a_run_and_are_restored(precision, deterministic):
    """TF32 is off in fp32 alone; cuDNN benchmarks unless it must be deterministic."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with backend_settings(torch.device("cuda"), precision, deterministic):
        assert cudnn.allow_tf32 is (precision != "fp32")
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()


PAGE_FAULTS = """
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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", PAGE_FAULTS, mode]))
        for mode in ("default", "kept")
    }
    assert faults["kept"] < 32 <= faults["default"]  # 16,384 pages of 4 KiB, or 32 of 2 MiB
