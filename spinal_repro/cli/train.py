"""``spinal-train``: the Hydra application."""

import os
import re
import sys
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import main as hydra_main
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spinal_repro.cli.cells import check_cell, expand
from spinal_repro.cli.launch import KEY, OWN, JobError, check_jobs, launcher_of
from spinal_repro.config import GROUPS, allowing, compose_raw, config_dir, explain, validate
from spinal_repro.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UserError,
    in_words,
    unknown,
)
from spinal_repro.foreign import FILE, guarded
from spinal_repro.schema import schema_keys
from spinal_repro.text import close_output, printable, tell
from spinal_repro.untrusted import refuse_unreadable

LINE_FEED = "\n"
SEARCH_PATH = "hydra.searchpath"
CELL = "paper"  # the group of published cells; none is chosen unless asked for


def main() -> None:
    """Entry point: exits 0 when every run asked for is finished."""
    code = _main(sys.argv[1:])
    close_output()
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach us; we print one line
    sweeping = not {"-m", "--multirun"}.isdisjoint(arguments)
    launcher, exit_code = OWN, 0

    def job(raw: DictConfig) -> float | None:
        nonlocal exit_code
        try:
            return _train(raw)
        except UserError as error:
            if sweeping:  # a launcher hands it to the process of the sweep
                raise JobError(str(error)) from None
            _complain(str(error))
            exit_code = error.exit_code
            return None

    try:
        if not {"-h", "--help"}.isdisjoint(arguments):
            from spinal_repro.cli.help import help_text

            print(help_text(GROUPS, [config_dir(), *_extra_dirs(arguments)]))
            return 0
        arguments = expand(arguments, sweeping)
        refuse_unreadable(_extra_dirs(arguments))
        check_overrides(arguments)
        if sweeping:
            launcher = launcher_of(arguments)
            if launcher == OWN:
                arguments = [*arguments, f"{KEY}={OWN}"]
            else:
                jobs = check_jobs(arguments, _extra_dirs(arguments))
                tell(f"{len(jobs)} jobs checked; {launcher} runs them")
        sys.argv = [*sys.argv[:1], *allowing(arguments)]  # what Hydra reads
        start = hydra_main(
            version_base="1.3", config_path=str(config_dir().resolve()), config_name="train"
        )(job)
        with guarded():
            start()
    except UserError as error:
        _complain(str(error))
        return EXIT_USAGE
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _complain(explain(error))
        return EXIT_USAGE
    except OSError as error:  # a folder or file that was named; a run's own are caught below it
        _complain(in_words(error))
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted; the same command continues")
        return EXIT_INTERRUPTED
    except Exception as error:
        if launcher == OWN and not isinstance(error, JobError):
            raise
        _complain(f"not all runs finished ({in_words(error)}); spinal status shows how each ended")
        return EXIT_FAILED
    return exit_code


def _train(raw: DictConfig) -> float:
    """Validate before the heavy imports, then train; returns the accuracy that selects."""
    config = validate(raw)
    from spinal_repro.outputs import summary
    from spinal_repro.training.run import run

    outcome = run(config)
    if outcome.was_done:
        tell(f"already finished: {outcome.folder}")
        for line in summary(outcome.record, outcome.folder / "record.json"):
            tell(line)
    return float(outcome.record["selection"]["accuracy"])


def _complain(message: str) -> None:
    tell(f"spinal-train: {printable(message, keep=LINE_FEED)}", error=True)


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
        if key in (CELL, *GROUPS) or re.split("[./]", key)[0] == "hydra" or "@" in key:
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
    """Folders with configuration of the user's own: ``--config-dir`` as Hydra reads it.

    Raises:
        UserError: for ways to bring in a whole configuration, which is this program's own.
    """
    given, _ = get_args_parser().parse_known_args(arguments)
    for option in ("config_path", "config_name", "experimental_rerun"):
        if getattr(given, option) is not None:
            raise UserError(
                f"--{option.replace('_', '-')} would replace this program's configuration; files "
                f"of your own go into a folder: --config-dir FOLDER"
            )
    folders = [] if given.config_dir is None else [Path(given.config_dir)]
    words = [a for a in arguments if a.lstrip("+").startswith(SEARCH_PATH)]
    for override in OverridesParser.create().parse_overrides(words):
        value = override.value()
        places = [str(place).removeprefix(FILE) for place in value] if type(value) is list else []
        folders += [Path(place) for place in places if "://" not in place]
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


if __name__ == "__main__":
    main()
