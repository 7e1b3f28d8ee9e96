"""Nothing but ``spinal data fetch`` and ``data.download=true`` uses the network."""

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
        ["model=torchvision", "model.name=mobilenet_v3_small"],
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


def test_tables_and_report(no_network, monkeypatch):
    from spinal_repro.paper import TABLES, load_cells
    from spinal_repro.records import read_records
    from spinal_repro.results import figures, pages, report
    from spinal_repro.results.cells import match
    from spinal_repro.results.claims import judge
    from spinal_repro.results.findings import findings_of, read_counts

    monkeypatch.setattr(pages, "claims", lambda *given: [])  # they are about every cell
    results = match(load_cells("mnist/*cnn_*"), read_records([ROOT / "results/records/mnist"]))
    counts = read_counts(ROOT / "results/counts.json")
    found = findings_of(results, counts, {"mnist": TABLES["mnist"]})
    assert "98.45" in pages.files(results, counts, {"mnist": TABLES["mnist"]})["tables/mnist.md"]
    assert "98.45" in report.render(found, judge([], found), list(figures.draw(found)))


def test_data_that_is_missing_is_not_fetched_unasked(no_network, tmp_path):
    from spinal_repro.data.sources import load_dataset

    for name in ("mnist", "cifar10", "svhn", "hymenoptera"):
        with pytest.raises(UserError):
            load_dataset(compose([f"dataset={name}"]).dataset, tmp_path)
