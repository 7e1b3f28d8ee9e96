"""``spinal-train``: the Hydra application."""

import os
import sys
from collections.abc import Sequence

from hydra import main as hydra_main
from omegaconf import DictConfig

from spinal_repro.cli import launch
from spinal_repro.cli.help import explain, help_text, string_help
from spinal_repro.cli.overrides import check_overrides, expand, split_arguments
from spinal_repro.config.compose import compose, config_dir, hydra_errors, prepare, version_base
from spinal_repro.config.schema import Config
from spinal_repro.config.validate import validate
from spinal_repro.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UserError, error_message
from spinal_repro.io import echo, ignore_broken_pipe, printable


def main() -> None:
    """Entry point: exits 0 when every run is finished."""
    code = _main(sys.argv[1:])
    ignore_broken_pipe()
    sys.exit(code)


def _main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # make Hydra raise errors
    looking = [a for a in arguments if a.partition("=")[0] in ("--explain", "--cfg", "-c")]
    sweeping = not {"-m", "--multirun"}.isdisjoint(arguments)
    launcher, exit_code = launch.DEFAULT_LAUNCHER, 0

    def job(raw: DictConfig) -> None:
        nonlocal exit_code
        try:
            _train(validate(raw))
        except UserError as error:
            if sweeping:  # the launcher re-raises it in the parent process
                raise launch.JobError(str(error)) from None
            _complain(str(error))
            exit_code = error.exit_code

    try:
        if not {"-h", "--help"}.isdisjoint(arguments):
            print(help_text(split_arguments(arguments)[0]))
            return 0
        arguments = expand([a for a in arguments if a != "--explain"], sweeping)
        folders, words = split_arguments(arguments)
        check_overrides(arguments)
        if looking and sweeping:
            raise UserError(f"{looking[0]} shows one configuration; leave out -m")
        if "--explain" in looking:
            print(explain(words, folders))
            return 0
        if sweeping:
            launcher, jobs = launch.launcher_of(arguments), launch.jobs_of(words, folders)
            if launcher == launch.DEFAULT_LAUNCHER:
                launch.run_jobs(jobs, folders)
                return 0
            launch.check_jobs(jobs, lambda own: compose(own, *folders))
            echo(f"{len(jobs)} jobs checked; {launcher} runs them")
        options = [argument for argument in arguments if argument not in words]
        # Hydra parses sys.argv, and refuses settings after an option that follows a setting
        sys.argv = [*sys.argv[:1], *options, *prepare(words, folders)]
        start = hydra_main(
            config_path=str(config_dir().resolve()), config_name="train", **version_base()
        )(job)
        with string_help(), hydra_errors(folders):
            start()
    except (UserError, OSError) as error:  # before any run
        _complain(error_message(error))
        return EXIT_USAGE
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted; the same command resumes")
        return EXIT_INTERRUPTED
    except Exception as error:
        if launcher == launch.DEFAULT_LAUNCHER and not isinstance(error, launch.JobError):
            raise
        _complain(f"some runs did not finish ({error_message(error)}); see: spinal status")
        return EXIT_FAILED
    return exit_code


def _train(config: Config) -> None:
    from spinal_repro.training.outputs import summary
    from spinal_repro.training.run import run

    outcome = run(config)
    if outcome.was_done:
        echo(f"already finished: {outcome.folder}")
        for line in summary(outcome.record, outcome.folder / "record.json"):
            echo(line)


def _complain(message: str) -> None:
    echo(f"spinal-train: {printable(message, keep=chr(10))}", error=True)


if __name__ == "__main__":
    main()
