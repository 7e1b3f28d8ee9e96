"""What a configuration from elsewhere may read: nothing but this program's own variables."""

import pytest
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from spinal_repro.config import compose, validate
from spinal_repro.errors import UserError
from spinal_repro.records import stored_config
from spinal_repro.untrusted import own_variables

SECRET = "hunter2"
TRICKS = [
    "${oc.env:MY_TOKEN}",
    "${oc.env:MY_TOKEN,none}",
    "${oc.decode:${oc.env:MY_TOKEN}}",
    "${oc.${recipe.optimizer}:MY_TOKEN}",
    "${oc.env:${recipe.optimizer}}",
    "a${oc.env:MY_TOKEN}b",
]


@pytest.fixture(scope="module")
def plain() -> dict:
    return compose([]).to_dict()


def leaking(plain: dict, trick: str) -> dict:
    optimizer = "env" if "${oc.${" in trick else "MY_TOKEN"
    return {
        **plain,
        "dataset": {**plain["dataset"], "title": trick},
        "recipe": {**plain["recipe"], "optimizer": optimizer},
    }


@pytest.mark.parametrize("trick", TRICKS)
def test_secrets_of_the_environment_stay_there(plain, trick, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    config = leaking(plain, trick)
    naive = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    assert SECRET in naive["dataset"]["title"], "OmegaConf alone gives it away"
    with pytest.raises(UserError, match="SPINAL_") as caught:
        validate(config)
    assert SECRET not in str(caught.value)
    with pytest.raises(UserError, match="refers to something else") as caught:
        stored_config(config)
    assert SECRET not in str(caught.value)


def test_what_resolves_to_a_reference_is_not_resolved_again(plain, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    for title in (r"\${oc.env:MY_TOKEN}", "${oc.env:SPINAL_TITLE}"):
        monkeypatch.setenv("SPINAL_TITLE", "${oc.env:MY_TOKEN}")
        with pytest.raises(UserError, match="refers to something else"):
            validate(leaking(plain, title))


def test_own_variables_are_read_and_the_resolver_is_put_back(monkeypatch):
    monkeypatch.setenv("SPINAL_X", "here")
    monkeypatch.setenv("MY_TOKEN", SECRET)
    node = OmegaConf.create({"a": "${oc.env:SPINAL_X}", "b": "${oc.env:SPINAL_Y,there}"})
    with own_variables():
        assert OmegaConf.to_container(node, resolve=True) == {"a": "here", "b": "there"}
    other = OmegaConf.create({"a": "${oc.env:MY_TOKEN}"})
    assert other.a == SECRET
    with pytest.raises(OmegaConfBaseException, match="SPINAL_"), own_variables():
        OmegaConf.to_container(other, resolve=True)
    assert other.a == SECRET


@pytest.mark.parametrize("text", ["${dataset.title}", "${oc.env:SPINAL_LOOP,${dataset.title}}"])
def test_references_in_a_circle(plain, text):
    with pytest.raises(UserError):
        validate(leaking(plain, text))


@pytest.mark.parametrize("asked", ["hydra:runtime.cwd", "now:%Y", "python_version:micro"])
def test_facts_of_the_machine_stay_there(plain, asked):
    from hydra.core.utils import setup_globals

    setup_globals()
    kept = dict(BaseContainer._resolvers)
    for trick in (f"${{{asked}}}", f"${{oc.decode:'${{{asked}}}'}}"):
        with pytest.raises(UserError, match="differs by machine or moment"):
            validate(leaking(plain, trick))
    assert kept == BaseContainer._resolvers
