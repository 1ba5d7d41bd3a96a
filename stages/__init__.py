"""Stages: one typer command per DVC stage, and a few tools. A stage opens its inputs, calls one
library function and writes its outputs. Its positional parameters are paths; its keyword-only ones
are options, or dataclasses of options whose fields are spelled as in params.yaml.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, get_args, get_origin, get_type_hints


def run(command: Callable) -> None:
    """Run `command` as a program on sys.argv."""
    import typer

    program = flatten(command)
    hints = get_type_hints(program)
    lists = {name for name, hint in hints.items() if get_origin(hint) is list}
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    settings = {"token_normalize_func": lambda token: token.replace("_", "-")}
    app.command(context_settings=settings)(program)
    sys.argv[1:] = last_lists(sys.argv[1:], lists)
    execute(app)


def flatten(command: Callable) -> Callable:
    """`command` with each dataclass among its parameters replaced by the fields of that class.

    The comment behind a parameter or field is its text in `--help`.
    """
    import inspect
    from dataclasses import MISSING, fields, is_dataclass

    import typer

    from pipeline.runtime.options import comments
    from stages.help import HELP

    hints, texts = get_type_hints(command), comments(command)
    parameters: dict[str, inspect.Parameter] = {}
    classes: dict[str, list[str]] = {}  # parameter of `command`: the fields of its class

    def add(name: str, hint: object, default: object, option: bool, text: str) -> None:
        assert name not in parameters, f"two options {name} of {command.__name__}"
        if get_origin(hint) is tuple:
            hint = list[get_args(hint)[0]]
            default = list(default) if isinstance(default, tuple) else default
        kind = typer.Option if option else typer.Argument
        parameters[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[hint, kind(help=text)],
        )

    for name, parameter in inspect.signature(command).parameters.items():
        option = parameter.kind is parameter.KEYWORD_ONLY
        if not is_dataclass(hints[name]):
            add(name, hints[name], parameter.default, option, HELP.get(name) or texts[name])
            continue
        own, own_hints = comments(hints[name]), get_type_hints(hints[name])
        classes[name] = [field.name for field in fields(hints[name])]
        for field in fields(hints[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            add(field.name, own_hints[field.name], default, True, own.get(field.name, ""))

    def program(**values: object) -> None:
        for name, names in classes.items():
            own = {field: values.pop(field) for field in names}
            own = {k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
            values[name] = hints[name](**own)
        command(**values)

    program.__name__, program.__doc__ = command.__name__, command.__doc__
    program.__signature__ = inspect.Signature(list(parameters.values()))
    program.__annotations__ = {name: p.annotation for name, p in parameters.items()}
    return program


def last_lists(words: Sequence[str], lists: Collection[str]) -> list[str]:
    """`--name a b c` as `--name a --name b --name c`; a list given again replaces the first one.

    So the values of a study replace those of a section, lists like numbers.
    """
    found: dict[str, list[str]] = {}
    others: list[str] = []
    name = None
    for word in words:
        if word.startswith("--"):
            key, equals, _ = word[2:].replace("-", "_").partition("=")
            name = key if key in lists else None
            if name:
                found[name] = [word.partition("=")[2]] if equals else []
                continue
        if name is None:
            others.append(word)
        else:
            found[name].append(word)
    return others + [w for key, values in found.items() for v in values for w in (f"--{key}", v)]


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
            "run again: finished work is kept, and --workers 1 needs the least memory"
        )


def _fail(error: object) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
