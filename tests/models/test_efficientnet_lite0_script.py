"""The script that lays out EfficientNet-Lite0's weights: names alone change."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from spinal_repro.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "scripts"


def test_tensors_get_timm_s_names_in_order(monkeypatch):
    if not SCRIPTS.is_dir():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    timm = pytest.importorskip("timm")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("efficientnet_lite0")
    monkeypatch.delitem(sys.modules, "efficientnet_lite0")
    net, other = (timm.create_model("tf_efficientnet_lite0") for _ in range(2))
    published = {f"other.{i}": t for i, t in enumerate(net.state_dict().values())}
    other.load_state_dict(script.renamed(published))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other.eval()(x))
    published["other.0"] = published["other.0"][:1]
    with pytest.raises(UserError, match="not the weights of EfficientNet-Lite0"):
        script.renamed(published)
