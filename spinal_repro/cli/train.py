"""``spinal-train``: the Hydra application."""

import os
import sys
import traceback
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import main as hydra_main
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.cli.cells import check_cell, expand
from spinal_repro.config import GROUPS, allowing, compose_raw, config_dir, explain, validate
from spinal_repro.errors import UserError, unknown
from spinal_repro.schema import schema_keys

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
CELL = "paper"  # the group of published cells; none is chosen unless asked for


def main() -> None:
    """Entry point: exits 0 when every run asked for is finished."""
    sys.exit(_main(sys.argv[1:]))


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach us; we print one line
    jobs: list[tuple[str, str]] = []  # (what, why it failed or "")
    sweeping = any(a in ("-m", "--multirun") for a in arguments)

    def job(raw: DictConfig) -> None:
        what = _describe(raw)
        try:
            _train(raw)
        except UserError as error:
            _complain(str(error))
            jobs.append((what, str(error)))
        except Exception as error:
            if not sweeping:
                raise
            traceback.print_exc()
            jobs.append((what, f"{type(error).__name__}: {error}"))
        else:
            jobs.append((what, ""))

    try:
        arguments = expand(arguments, sweeping)
        check_overrides(arguments)
        sys.argv = [*sys.argv[:1], *allowing(arguments)]  # what Hydra reads
        hydra_main(
            version_base="1.3", config_path=str(config_dir().resolve()), config_name="train"
        )(job)()
    except UserError as error:
        _complain(str(error))
        return EXIT_USAGE
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _complain(explain(error))
        return EXIT_USAGE
    except OSError as error:
        if not sweeping:
            raise
        _complain(str(error))  # the jobs' own errors are caught above: this is the sweep folder
        return EXIT_USAGE
    except KeyboardInterrupt:
        _complain("interrupted; the same command continues after the last finished epoch")
        return EXIT_INTERRUPTED
    failed = [(what, why) for what, why in jobs if why]
    if sweeping and jobs:
        print(f"{len(jobs) - len(failed)} of {len(jobs)} runs finished")
        for what, why in failed:
            print(f"failed: {what}: {why}", file=sys.stderr)
    return EXIT_FAILED if failed else 0


def _train(raw: DictConfig) -> None:
    """Validate before the heavy imports, then train."""
    config = validate(raw)
    from spinal_repro.training.report import summary
    from spinal_repro.training.run import run

    outcome = run(config)
    if outcome.was_done:
        print(f"already finished: {outcome.folder}")
        for line in summary(outcome.record, outcome.folder / "record.json"):
            print(line)


def _describe(raw: DictConfig) -> str:
    quiet = ("runtime", "tracker")
    groups = [g for g in (CELL, *GROUPS) if g not in quiet and raw.get(g) is not None]
    choices = [f"{g}={OmegaConf.select(raw, f'{g}.name')}" for g in groups]
    return " ".join([*choices, f"seed={raw.get('seed')}"])


def _complain(message: str) -> None:
    print(f"spinal-train: {message}", file=sys.stderr)


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse unknown groups, choices and keys on the command line, naming the nearest one.

    Hydra would accept unknown keys behind ``+``; its other messages name no alternative.

    Raises:
        UserError: for the first one found.
    """
    words = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    overrides = OverridesParser.create().parse_overrides(words)
    folders = [config_dir(), *_extra_dirs(arguments)]
    choices: list[str] = []
    for override in overrides:
        if override.key_or_group in (CELL, *GROUPS):
            names = _choices(override)
            if override.is_add() or override.is_force_add():
                raise UserError(
                    f"a {override.key_or_group} is chosen without a plus; "
                    f"leave out the plus of {override.input_line}"
                )
            for name in names:
                if override.key_or_group == CELL:
                    check_cell(name, folders[1:])
                else:
                    _check_choice(override.key_or_group, name, folders)
            if names:
                choices.append(f"{override.key_or_group}={names[0]}")
    extra = folders[1] if len(folders) > 1 else None
    known: set[str] | None = None
    for override in overrides:
        key = override.key_or_group
        if key in (CELL, *GROUPS) or key.split(".")[0] in ("hydra",) or "@" in key:
            continue
        if known is None:  # composing takes a moment; do it only where a key needs it
            known = {*_keys(compose_raw(choices, extra)), *schema_keys()}
            known = {
                k for k in known if k.split(".")[0] != CELL
            }  # what was published is no setting
        if key not in known:
            elsewhere = _keys_elsewhere(known, folders)
            if key in elsewhere:
                *others, final = elsewhere[key]
                owners = f"{', '.join(others)} or {final}" if others else final
                raise UserError(
                    f"{key} belongs to {key.partition('.')[0]}={owners}, not to what is chosen"
                )
            raise unknown("configuration key", key, {*known, *elsewhere})


def _extra_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders with configuration of the user's own: ``--config-dir``."""
    found = []
    for position, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd") and position + 1 < len(arguments):
            found.append(Path(arguments[position + 1]))
        elif argument.startswith("--config-dir="):
            found.append(Path(argument.partition("=")[2]))
    return found


def _choices(override: Override) -> list[str]:
    """The names an override chooses in a group; none for a glob or a deletion."""
    if override.is_sweep_override():
        if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
            return []
        return [str(name) for name in override.sweep_string_iterator()]
    if override.is_delete() or (override.key_or_group == CELL and override.value() is None):
        return []
    return [str(override.value())]


def _check_choice(group: str, name: str, folders: Iterable[Path]) -> None:
    known = [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]
    if name not in known:
        raise unknown(group, name, known)


def _keys_elsewhere(known: Container[str], folders: Iterable[Path]) -> dict[str, list[str]]:
    """Keys that only other choices of their group have, each with those choices."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for group in GROUPS:
            for path in sorted((folder / group).glob("*.yaml")):
                for key in _keys(OmegaConf.load(path), f"{group}."):
                    if key not in known and key != f"{group}.defaults":
                        found.setdefault(key, []).append(path.stem)
    return found


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted key of a configuration."""
    if not isinstance(node, DictConfig):
        return
    for key in map(str, node):
        yield f"{prefix}{key}"
        yield from _keys(node._get_node(key), f"{prefix}{key}.")
