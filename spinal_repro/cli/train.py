"""``spinal-train``: the Hydra application."""

import argparse
import os
import re
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
from spinal_repro.cli.help import help_text, textual_help
from spinal_repro.cli.launch import Jobs, elsewhere, requeued
from spinal_repro.cli.sweep import named, run_together, with_launcher
from spinal_repro.config import (
    GROUPS,
    allowing,
    compose_raw,
    config_dir,
    explain,
    validate,
    version_base,
)
from spinal_repro.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UserError,
    in_words,
    unknown,
)
from spinal_repro.files import read_yaml
from spinal_repro.schema import schema_keys
from spinal_repro.text import close_output, printable, tell
from spinal_repro.training.stop import Stop, listen_for_good

LINE_FEED = "\n"
CELL = "paper"  # the group of published cells; none is chosen unless asked for


def main() -> None:
    """Entry point: exits 0 when every run asked for is finished."""
    listen_for_good()
    code = _main(sys.argv[1:])
    close_output()
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors reach us; we print one line
    jobs = Jobs()
    sweeping = any(a in ("-m", "--multirun") for a in arguments)
    exit_code = EXIT_FAILED

    def job(raw: DictConfig) -> None:
        nonlocal exit_code
        what = _describe(raw)
        try:
            with requeued(), Stop():  # in effect while torch is imported, too
                _train(raw)
        except UserError as error:
            _complain(str(error))
            exit_code = EXIT_FAILED if sweeping else error.exit_code
            jobs.append((what, str(error)))
        except Exception as error:
            if not sweeping:
                raise
            traceback.print_exc()
            jobs.append((what, f"{type(error).__name__}: {error}"))
        else:
            jobs.append((what, ""))

    def together(raws: list[DictConfig], overrides: Sequence[Sequence[str]]) -> list[float | None]:
        if not raws:
            raise UserError("this sweep has no runs: one of its lists or ranges is empty")
        ended, whole = run_together(raws, named([_describe(raw) for raw in raws], overrides))
        jobs.extend((job.what, job.why_not) for job in ended if whole or not job.can_go_on)
        if not whole:
            left = [job.state for job in ended if job.can_go_on]
            tell(f"{left.count('interrupted')} interrupted, {left.count('waiting')} waiting")
            raise KeyboardInterrupt
        return [job.accuracy for job in ended]

    job.together = together  # type: ignore[attr-defined]  # for the launcher of hydra_plugins

    try:
        with Stop():
            if not {"-h", "--help"}.isdisjoint(arguments):
                print(help_text(GROUPS, [config_dir(), *_extra_dirs(arguments)]))
                return 0
            if sweeping and "TORCHELASTIC_RUN_ID" in os.environ:
                raise UserError("torchrun is for one training: leave out -m, or leave out torchrun")
            arguments = expand(arguments, sweeping)
            check_overrides(arguments)
            if sweeping:
                arguments = with_launcher(arguments)
            sys.argv = [*sys.argv[:1], *allowing(arguments)]  # what Hydra reads
            start = hydra_main(
                config_path=str(config_dir().resolve()), config_name="train", **version_base()
            )(job)
            with textual_help(), elsewhere(arguments, jobs, _extra_dirs(arguments)):
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
        if sweeping and jobs:
            _report(jobs)
        _complain(str(error) or "interrupted; the same command continues")
        return EXIT_INTERRUPTED
    if sweeping and jobs:
        _report(jobs)
    return exit_code if any(why for _, why in jobs) else 0


def _report(jobs: Sequence[tuple[str, str]]) -> None:
    """How the jobs of a sweep ended, the failed ones by name."""
    failed = [(what, why) for what, why in jobs if why]
    tell(f"{len(jobs) - len(failed)} of {len(jobs)} runs finished")
    for what, why in failed:
        tell(printable(f"failed: {what}: {why}", keep=LINE_FEED), error=True)


def _train(raw: DictConfig) -> None:
    """Validate before the heavy imports, then train."""
    config = validate(raw)
    from spinal_repro.training.report import summary
    from spinal_repro.training.run import run

    outcome = run(config)
    if outcome.was_done and os.environ.get("RANK", "0") == "0":
        tell(f"already finished: {outcome.folder}")
        for line in summary(outcome.record, outcome.folder / "record.json"):
            tell(line)


def _describe(raw: DictConfig) -> str:
    quiet = ("runtime", "tracker")
    groups = [g for g in (CELL, *GROUPS) if g not in quiet and raw.get(g) is not None]
    choices = [f"{g}={OmegaConf.select(raw, f'{g}.name')}" for g in groups]
    return " ".join([*choices, f"seed={raw.get('seed')}"])


def _complain(message: str) -> None:
    rank = os.environ.get("RANK", "0")  # of torchrun
    name = "spinal-train" if rank == "0" else f"spinal-train (process {rank})"
    tell(f"{name}: {printable(message, keep=LINE_FEED)}", error=True)


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


if __name__ == "__main__":  # for torchrun
    main()
