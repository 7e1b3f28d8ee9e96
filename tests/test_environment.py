"""Compiling in place, and the commit that records name."""

import pytest
import torch

from spinal_repro.environment import compile_model, git_revision
from spinal_repro.errors import UserError
from spinal_repro.heads import SpinalHead

CPU = torch.device("cpu")


def test_a_compiled_model_keeps_the_names_of_its_weights(monkeypatch):
    from torch._inductor import cpp_builder

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "c++")  # nothing is compiled here
    compiled, compile_it = [], torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda m, **how: (compiled.append(m), compile_it(m, **how))
    )
    model = SpinalHead(8, 3, width=4, layers=2)
    names = list(model.state_dict())
    compile_model(model, CPU)
    assert compiled == [model], "calling it must run the compiled one"
    assert list(model.state_dict()) == names


def test_a_missing_compiler_is_said_before_training(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_model(torch.nn.Linear(2, 2), CPU)


@pytest.mark.parametrize(("suffix", "modified"), [("", False), ("+modified", True)])
def test_the_commit_can_be_given(monkeypatch, suffix, modified):
    monkeypatch.setenv("SPINAL_COMMIT", "0123456789abcdef" + suffix)
    assert git_revision() == {"commit": "0123456789abcdef", "modified": modified}
