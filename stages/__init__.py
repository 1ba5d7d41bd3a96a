"""Stages: one typer command per DVC stage, and a few tools. A stage opens, calls one library
function and writes; its options are its keyword-only parameters, spelled as in params.yaml.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, get_type_hints


def run(command: Callable) -> None:
    """Run `command` as a program: positional parameters are paths, keyword-only ones options."""
    import typer

    from stages.help import HELP

    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind = typer.Option if parameter.kind is parameter.KEYWORD_ONLY else typer.Argument
        hints[name] = Annotated[hints[name], kind(help=HELP[name])]
    command.__annotations__ = hints
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    settings = {"token_normalize_func": lambda token: token.replace("_", "-")}
    app.command(context_settings=settings)(command)
    execute(app)


def execute(app: Callable) -> None:
    """Run a typer app; bad input becomes one sentence on stderr and exit status 2."""
    from concurrent.futures.process import BrokenProcessPool

    from pipeline.runtime.errors import InputError

    try:
        app()
    except InputError as error:
        _fail(error)
    except BrokenProcessPool:
        _fail(
            "got a worker process that died (killed, or out of memory); wanted it to finish; "
            "run again: finished shards are kept, and --workers 1 needs the least memory"
        )


def _fail(error: object) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
