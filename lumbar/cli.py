"""The command line: ``lumbar --help``. The commands are in `lumbar.commands`.

Exit status: 0 done, 1 lumbar failed or has no result, 2 a mistake of the caller, 3 rejections under
``--strict``.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from lumbar import __version__
from lumbar.cache.errors import BusyError, InputError, LumbarError, from_system
from lumbar.commands import (
    bench,
    blend,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    inspect,
    merge,
    predict,
    preprocess,
    report,
    sweep,
    synth,
    train,
    verify,
)
from lumbar.display.plain_text import show_any_text
from lumbar.display.terminal import say, say_error, show_logs

MISTAKE = 2
COMMANDS = (
    preprocess.preprocess,
    verify.verify,
    merge.merge,
    convert.convert,
    inspect.inspect,
    report.report,
    train.train,
    sweep.sweep,
    evaluate.evaluate,
    blend.blend,
    predict.predict,
    export.export,
    synth.synth,
    bench.bench,
    doctor.doctor,
    demo.demo,
)
"""In the order of ``lumbar --help``."""

_log = logging.getLogger("lumbar.cli")

app = typer.Typer(
    help="Lumbar-spine MRI from DICOM files to a trained CNN+LSTM and a submission.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_command)


def _show_version(wanted: bool) -> bool:
    if wanted:
        say(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def _configure(
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more.")] = 0,
    version: Annotated[
        bool, typer.Option(is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging before any command."""
    show_logs(verbose)


def main() -> None:
    """Run the command line; print lumbar's own errors as one line, with an exit status."""
    show_any_text()
    try:
        app(prog_name="lumbar")
    except (LumbarError, OSError) as error:
        shown = error if isinstance(error, LumbarError) else from_system(error)
        say_error(str(shown))
        _log.debug("the traceback", exc_info=error)
        sys.exit(MISTAKE if isinstance(shown, InputError | OSError | ValueError | BusyError) else 1)


if __name__ == "__main__":
    main()
