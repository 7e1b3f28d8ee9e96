"""``spinal-train``: the Hydra application."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence
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
from spinal_repro.cli.explain import explain
from spinal_repro.cli.help import help_text, textual_help
from spinal_repro.cli.launch import KEY, OWN, JobError, check_jobs, launcher_of, override_words
from spinal_repro.config.compose import (
    GROUPS,
    choices,
    compose_raw,
    config_dir,
    find_choice,
    library_networks,
    prepare,
    version_base,
)
from spinal_repro.config.schema import Config, schema_keys
from spinal_repro.config.validate import format_hydra_error, validate
from spinal_repro.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UserError,
    error_message,
    unknown,
)
from spinal_repro.io import echo, ignore_broken_pipe, printable

LINE_FEED = "\n"
CELL = "paper"  # the group of published cells


def main() -> None:
    """Entry point: exits 0 when every run is finished."""
    code = _main(sys.argv[1:])
    ignore_broken_pipe()
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach us; we print one line
    explaining = "--explain" in arguments
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
            print(help_text(extra_dirs(arguments)))
            return 0
        arguments = expand([a for a in arguments if a != "--explain"], sweeping)
        folders = extra_dirs(arguments)
        check_overrides(arguments)
        if explaining:
            print(explain(override_words(arguments), folders))
            return 0
        if sweeping:
            launcher = launcher_of(arguments)
            if launcher == OWN:
                arguments = [*arguments, f"{KEY}={OWN}"]
            else:
                jobs = check_jobs(arguments, folders)
                echo(f"{len(jobs)} jobs checked; {launcher} runs them")
        sys.argv = [*sys.argv[:1], *prepare(arguments, folders)]  # Hydra reads it
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
    except OSError as error:  # of a folder or file on the command line
        _complain(error_message(error))
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted; the same command continues")
        return EXIT_INTERRUPTED
    except Exception as error:
        if launcher == OWN and not isinstance(error, JobError):
            raise
        _complain(f"some runs did not finish ({error_message(error)}); see: spinal status")
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
    """Refuse unknown groups, choices and keys on the command line, with the nearest that exists.

    Hydra would accept unknown keys behind ``+``; its other messages name no alternative.
    """
    overrides = OverridesParser.create().parse_overrides(override_words(arguments))
    folders, groups = extra_dirs(arguments), (CELL, *GROUPS)
    chosen, keys = [], []
    for override in overrides:
        key = override.key_or_group
        if key not in groups:
            if "@" not in key and re.split("[./]", key)[0] != "hydra":
                keys.append(key)
            continue
        if override.is_add() or override.is_force_add():
            raise UserError(f"leave out the plus of {override.input_line}")
        names = _names(override)
        for name in names:
            _check_choice(key, name, folders)
        chosen += [f"{key}={name}" for name in names[:1]]
    if keys:  # composing takes a moment
        composed = _keys(OmegaConf.to_container(compose_raw(chosen, *folders)))
        known = {key for key in (*composed, *schema_keys()) if key.partition(".")[0] != CELL}
        for key in keys:
            if key not in known:
                raise _unknown_key(key, known, folders)


def extra_dirs(arguments: Sequence[str]) -> list[Path]:
    """Folders with configuration of the user's own: ``--config-dir`` and ``hydra.searchpath``."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--cfg", "-c")  # else -c would be taken for the beginning of -cd
    given, _ = parser.parse_known_args(arguments)
    folders = [] if given.config_dir is None else [Path(given.config_dir)]
    if folders and not folders[0].is_dir():
        raise UserError(f"--config-dir {folders[0]} is not a folder")
    words = [a for a in arguments if a.lstrip("+").startswith("hydra.searchpath=")]
    for override in OverridesParser.create().parse_overrides(words):
        value = override.value()
        places = value if isinstance(value, list) else []
        folders += [Path(str(place).removeprefix("file://")) for place in places]
    return folders


def _names(override: Override) -> list[str]:
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
        check_cell(name, folders)
        return
    known = choices(group, folders)
    if name in known:
        return
    if group == "model":
        known += difflib.get_close_matches(name, library_networks(), n=1, cutoff=0.8)
    if name not in known:
        raise unknown(group, name, known)


def _unknown_key(key: str, known: Iterable[str], folders: Iterable[Path]) -> UserError:
    """The error for a key that nothing chosen has; other choices of its group may have it."""
    group, _, option = key.partition(".")
    owners, others = [], set(known)
    for name in choices(group, folders):
        options = set(_keys(find_choice(group, name, folders)[1])) - {"defaults"}
        others |= {f"{group}.{other}" for other in options}
        owners += [name] * (option in options)
    if not owners:
        return unknown("configuration key", key, others)
    *first, last = owners
    names = f"{', '.join(first)} or {last}" if first else last
    return UserError(f"{key} belongs to {group}={names}, which is not chosen")


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    """Every dotted key of nested mappings."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _keys(value, f"{prefix}{key}.")


if __name__ == "__main__":
    main()
