"""The private parts of other libraries that `compat` uses still work.

Seen with torch 2.7 to 2.14. A version in which one of these tests fails needs a change in
`compat` alone.
"""

import pytest
import torch

from spinal_repro.training import compat

OPTIONS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01, "weight_decay": 0.1}}


@pytest.mark.parametrize("name", OPTIONS)
def test_optimizers_step_as_those_of_pytorch_and_share_their_checkpoints(name):
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4)) for _ in range(2)]
    ours, theirs = (
        getattr(library, name)([weight], fused=True, **OPTIONS[name])
        for library, weight in zip((compat, torch.optim), weights, strict=True)
    )
    for step in range(4):
        for weight, optimizer in zip(weights, (ours, theirs), strict=True):
            (weight.sin() * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert weight.grad is None
        assert torch.equal(*weights)
        assert str(ours.state_dict()) == str(theirs.state_dict())
        saved = ours.state_dict(), theirs.state_dict()
        theirs.load_state_dict(saved[0])
        ours.load_state_dict(saved[1])
