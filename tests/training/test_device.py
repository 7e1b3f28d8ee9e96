"""The device and PyTorch's settings for a run, compiling in place, and the commit in records."""

import pytest
import torch
from torch import nn

from spinal_repro.errors import UserError
from spinal_repro.models.heads import SpinalHead
from spinal_repro.records.provenance import git_revision
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


def test_a_missing_compiler_is_said_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_model(nn.Linear(2, 2), CPU)


def test_a_device_that_is_missing_is_named():
    with pytest.raises(UserError, match="cuda"):
        resolve_device("cuda:77" if torch.cuda.is_available() else "cuda")


def test_threads(tmp_path):
    before = torch.get_num_threads()
    assert set_threads(None, tmp_path) == before
    (tmp_path / "config.yaml").write_text("runtime: {threads: 2}")
    assert set_threads(None, tmp_path) == torch.get_num_threads() == 2
    assert set_threads(1, tmp_path) == torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"runtime: {threads: x}", b"runtime: {threads: null}", b"[1", b""]
)
def test_threads_of_a_damaged_configuration_are_those_of_the_machine(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    assert set_threads(None, tmp_path) == torch.get_num_threads()


class Unpooling(nn.Module):
    """Has no deterministic implementation in PyTorch, on any device."""

    def forward(self, images):
        pooled, where = nn.functional.max_pool2d(images, 2, return_indices=True)
        return images + nn.functional.max_unpool2d(pooled, where, 2)


def test_deterministic_is_kept_or_refused(tmp_path, monkeypatch):
    from helpers.variety import small

    from spinal_repro.training import run as run_module

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
    with (
        pytest.raises(UserError, match="on mps"),
        backend_settings(torch.device("mps"), "fp32", deterministic=True),
    ):
        pass
    with backend_settings(torch.device("mps"), "fp32"):
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_backend_settings_hold_for_a_run_and_are_restored(precision, deterministic):
    """TF32 is off in fp32 alone; cuDNN chooses the fastest algorithm unless it must not."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with backend_settings(torch.device("cuda"), precision, deterministic):
        assert cudnn.allow_tf32 is (precision != "fp32")
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("suffix", "modified"), [("", False), ("+modified", True)])
def test_the_commit_can_be_given(monkeypatch, suffix, modified):
    monkeypatch.setenv("SPINAL_COMMIT", "0123456789abcdef" + suffix)
    assert git_revision() == {"commit": "0123456789abcdef", "modified": modified}
