"""The private parts of other libraries that `compat` uses still do what they did.

Seen with torch 2.7 to 2.14. A version in which one of these tests fails needs a change in
`compat` alone.
"""

import subprocess
import sys

import pytest
import torch

from spinal_repro.training import compat

OPTIONS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01, "weight_decay": 0.1}}


def train(kind: type[torch.optim.Optimizer], **options: float) -> tuple[torch.Tensor, dict]:
    weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    optimizer = kind([weight], fused=True, **options)
    for step in range(3):
        (weight.sin() * (step + 1)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    return weight.detach(), state


@pytest.mark.parametrize("name", OPTIONS)
def test_optimizers_compute_what_those_of_torch_do(name):
    weight, state = train(getattr(compat, name), **OPTIONS[name])
    expected, expected_state = train(getattr(torch.optim, name), **OPTIONS[name])
    assert torch.equal(weight, expected)
    assert str(state) == str(expected_state)


def test_optimizers_do_not_import_the_compiler():
    code = (
        "import sys, torch\n"
        "from spinal_repro.training.compat import SGD\n"
        "optimizer = SGD([torch.nn.Parameter(torch.ones(1))], 0.1, fused=True)\n"
        "optimizer.zero_grad(); optimizer.step(); optimizer.state_dict()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
