"""Nothing but ``spinal data fetch`` and ``data.download=true`` uses the network."""

import json
import socket
from pathlib import Path

import pytest

from spinal_repro.cli.spinal import main
from spinal_repro.config import compose
from spinal_repro.errors import UserError

ROOT = Path(__file__).parents[2]


class Reached(BaseException):
    """Somebody tried."""


@pytest.fixture
def no_network(monkeypatch):
    """Every way out ends the test, also where an ``except Exception`` stands around it."""

    def refuse(*arguments: object, **options: object) -> None:
        raise Reached(arguments)

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


def test_the_block_holds(no_network, tmp_path):
    with pytest.raises(Reached):
        main(["data", "fetch", "mnist", "--root", str(tmp_path)])


def small(runs: Path, *more: str) -> list[str]:
    return [
        f"runs={runs}", "data.limit=60", "recipe.epochs=1", "recipe.batch_size=32",
        "runtime.device=cpu", "runtime.progress=none", *more,
    ]  # fmt: skip


def test_training_and_using_what_was_trained(no_network, tmp_path, capsys):
    from PIL import Image

    from spinal_repro.training.run import run

    folder = run(compose(small(tmp_path / "runs", "head=spinal", "head.width=4"))).folder
    Image.new("L", (28, 28)).save(tmp_path / "one.png")
    main(["eval", str(folder)])
    main(["predict", str(folder), str(tmp_path / "one.png")])
    main(["status", str(tmp_path / "runs")])
    assert "done" in capsys.readouterr().out


@pytest.mark.parametrize(
    "model",
    [
        ["model=torchvision", "model.name=squeezenet1_0"],
        ["model=timm", "model.name=mobilenetv3_small_050"],
    ],
)
def test_networks_of_libraries_without_weights(no_network, model):
    from spinal_repro.sizes import sizes

    assert sizes([*model, "dataset=hymenoptera", "dataset.image_size=64", "head=fc"]).rows


def test_a_name_of_timms_hub_is_no_model(no_network):
    with pytest.raises(UserError):
        from spinal_repro.model import build_model

        config = compose(["model=timm", "model.name=resnet18", "dataset=hymenoptera"])
        options = {**config.model.options}
        model = type(config.model)("hf_hub:somebody/model", options, "timm")
        build_model(config.dataset, model, config.head, image_size=64)


def test_tables_claims_and_report(no_network, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = tmp_path / "records"
    records.mkdir()
    for name in ("cnn_fc-paper-eb7f4acf-s0", "cnn_spinal8-paper-fe4f9e8b-s0"):
        text = (ROOT / "results/records/mnist" / f"{name}.json").read_text()
        (records / f"{name}.json").write_text(json.dumps(json.loads(text)))
    given = ["--records", str(records), "--counts", str(ROOT / "results/counts.json")]
    main(["tables", "--out", str(tmp_path / "my"), *given])
    main(["claims", *given])
    main(["report", "--out", str(tmp_path / "my" / "index.html"), *given])
    assert (tmp_path / "my" / "index.html").stat().st_size > 10_000


def test_data_that_is_missing_is_not_fetched_unasked(no_network, tmp_path):
    from spinal_repro.data.sources import load_dataset

    for name in ("mnist", "cifar10", "svhn", "hymenoptera"):
        with pytest.raises(UserError):
            load_dataset(compose([f"dataset={name}"]).dataset, tmp_path)
