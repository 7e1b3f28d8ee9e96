"""``spinal-train``: the Hydra application."""

import argparse
import os
import re
import sys
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
from spinal_repro.cli.help import help_text, textual_help
from spinal_repro.cli.launch import KEY, OWN, JobError, check_jobs, launcher_of
from spinal_repro.config.compose import (
    GROUPS,
    compose_raw,
    config_dir,
    force_add_schema_keys,
    format_hydra_error,
    validate,
    version_base,
)
from spinal_repro.config.schema import Config, schema_keys
from spinal_repro.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UserError,
    error_message,
    unknown,
)
from spinal_repro.io import echo, ignore_broken_pipe, printable, read_yaml

LINE_FEED = "\n"
CELL = "paper"  # the group of published cells; none is chosen unless asked for


def main() -> None:
    """Entry point: exits 0 when every run asked for is finished."""
    code = _main(sys.argv[1:])
    ignore_broken_pipe()
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach us; we print one line
    sweeping = not {"-m", "--multirun"}.isdisjoint(arguments)
    launcher, exit_code = OWN, 0

    def job(raw: DictConfig) -> float | None:
        nonlocal exit_code
        config = None
        try:
            config = validate(raw)
            return _train(config)
        except UserError as error:
            if sweeping:  # a launcher hands it to the process of the sweep
                raise JobError(str(error)) from None
            _complain(str(error))
            exit_code = EXIT_USAGE if config is None else error.exit_code
            return None

    try:
        if not {"-h", "--help"}.isdisjoint(arguments):
            print(help_text(GROUPS, [config_dir(), *_extra_dirs(arguments)]))
            return 0
        arguments = expand(arguments, sweeping)
        check_overrides(arguments)
        if sweeping:
            launcher = launcher_of(arguments)
            if launcher == OWN:
                arguments = [*arguments, f"{KEY}={OWN}"]
            else:
                jobs = check_jobs(arguments, _extra_dirs(arguments))
                echo(f"{len(jobs)} jobs checked; {launcher} runs them")
        sys.argv = [*sys.argv[:1], *force_add_schema_keys(arguments)]  # what Hydra reads
        start = hydra_main(
            config_path=str(config_dir().resolve()), config_name="train", **version_base()
        )(job)
        with textual_help():
            start()
    except UserError as error:
        _complain(str(error))
        return EXIT_USAGE
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _complain(format_hydra_error(error))
        return EXIT_USAGE
    except OSError as error:  # a folder or file that was named; a run's own are caught below it
        _complain(error_message(error))
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted; the same command continues")
        return EXIT_INTERRUPTED
    except Exception as error:
        if launcher == OWN and not isinstance(error, JobError):
            raise
        _complain(
            f"not all runs finished ({error_message(error)}); spinal status shows how each ended"
        )
        return EXIT_FAILED
    return exit_code


def _train(config: Config) -> float:
    """Train; returns the accuracy that selects."""
    from spinal_repro.training.outputs import summary
    from spinal_repro.training.run import run

    outcome = run(config)
    if outcome.was_done:
        echo(f"already finished: {outcome.folder}")
        for line in summary(outcome.record, outcome.folder / "record.json"):
            echo(line)
    return outcome.record.selection.accuracy


def _complain(message: str) -> None:
    echo(f"spinal-train: {printable(message, keep=LINE_FEED)}", error=True)


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse unknown groups, choices and keys on the command line, naming the nearest one.

    Hydra would accept unknown keys behind ``+``; its other messages name no alternative.

    Raises:
        UserError: for the first one found.
    """
    words = [a for a in arguments if not a.startswith("-") and ("=" in a or a.startswith("~"))]
    overrides = OverridesParser.create().parse_overrides(words)
    folders = [config_dir(), *_extra_dirs(arguments)]
    groups, chosen = (CELL, *GROUPS), []
    for override in (o for o in overrides if o.key_or_group in groups):
        group = override.key_or_group
        if override.is_add() or override.is_force_add():
            raise UserError(
                f"a {group} is chosen without a plus; leave out the plus of {override.input_line}"
            )
        names = _choices(override)
        for name in names:
            _check_choice(group, name, folders)
        chosen += [f"{group}={name}" for name in names[:1]]
    keys = [o.key_or_group for o in overrides if o.key_or_group not in groups]
    keys = [k for k in keys if "@" not in k and re.split("[./]", k)[0] != "hydra"]
    if keys:  # composing takes a moment
        composed = OmegaConf.to_container(compose_raw(chosen, *folders[1:2]))
        # what was published about a cell is no setting
        known = {k for k in {*_keys(composed), *schema_keys()} if k.split(".")[0] != CELL}
        _check_keys(keys, known, folders)


def _check_keys(keys: Iterable[str], known: set[str], folders: Iterable[Path]) -> None:
    """Refuse keys that nothing chosen has: other choices may have them, or it is a typo."""
    unknown_keys = [key for key in keys if key not in known]
    if not unknown_keys:
        return
    key, elsewhere = unknown_keys[0], _keys_elsewhere(known, folders)
    if key in elsewhere:
        *others, final = elsewhere[key]
        owners = f"{', '.join(others)} or {final}" if others else final
        raise UserError(f"{key} belongs to {key.partition('.')[0]}={owners}, not to what is chosen")
    raise unknown("configuration key", key, {*known, *elsewhere})


def _extra_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders with configuration of the user's own: ``--config-dir`` and ``hydra.searchpath``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c")  # else -c would be taken for the beginning of -cd
    given, _ = parser.parse_known_args(arguments)
    folders = [] if given.config_dir is None else [Path(given.config_dir)]
    words = [a for a in arguments if a.lstrip("+").startswith("hydra.searchpath=")]
    for override in OverridesParser.create().parse_overrides(words):
        value = override.value()
        places = value if isinstance(value, list) else []
        folders += [Path(str(place).removeprefix("file://")) for place in places]
    return folders


def _choices(override: Override) -> list[str]:
    """The names an override chooses in a group; none for a glob or a deletion."""
    if override.is_sweep_override():
        if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
            return []
        return [str(name) for name in override.sweep_string_iterator()]
    if override.is_delete() or (override.key_or_group == CELL and override.value() is None):
        return []
    return [str(override.value())]


def _check_choice(group: str, name: str, folders: Sequence[Path]) -> None:
    if group == CELL:
        check_cell(name, folders[1:])
        return
    known = [path.stem for folder in folders for path in (folder / group).glob("*.yaml")]
    if name not in known:
        raise unknown(group, name, known)


def _keys_elsewhere(known: Container[str], folders: Iterable[Path]) -> dict[str, list[str]]:
    """Keys that only other choices of their group have, each with those choices."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for group in GROUPS:
            for path in sorted((folder / group).glob("*.yaml")):
                for key in _keys(read_yaml(path), f"{group}."):
                    if key not in known and key != f"{group}.defaults":
                        found.setdefault(key, []).append(path.stem)
    return found


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted key of nested mappings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
