"""Stages: one typer command per DVC stage, and a few tools. A stage opens its inputs, calls one
library function and writes its outputs. Its positional parameters are paths, or dataclasses whose
fields are paths (`paths.py`). Its keyword-only parameters are options, or dataclasses whose fields
are options, named as in params.yaml.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import GenericAlias
from typing import Annotated, Any, TypeGuard, get_args, get_origin, get_type_hints

AGAIN = "PIPELINE_AGAIN"  # environment variable of a stage that met damaged bytes and runs again


def run(command: Callable) -> None:
    """Run `command` as a program on sys.argv."""
    import typer

    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    settings = {"token_normalize_func": lambda token: token.replace("_", "-")}
    app.command(context_settings=settings)(flatten(command))
    execute(app)


def options(command: Callable) -> dict[str, bool]:
    """The options of a stage, and whether each is required."""
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(flatten(command)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def flatten(command: Callable) -> Callable:
    """`command` with the fields of its dataclass parameters as parameters of their own.

    Those of a positional parameter are arguments in its place, those of another one are options.
    Values that are left out have the defaults of the fields. Two fields of one name are an error.
    """
    hints = get_type_hints(command)
    parameters: dict[str, inspect.Parameter] = {}
    for one in _parameters(command):
        assert one.name not in parameters, f"two options {one.name} of {command.__name__}"
        parameters[one.name] = one
    classes = {name: hint for name, hint in hints.items() if _is_class(hint)}

    signature = inspect.Signature(list(parameters.values()))

    def program(*paths: object, **values: object) -> None:
        given = signature.bind(*paths, **values).arguments
        built = {name: _build(kind, given) for name, kind in classes.items()}
        command(**built, **given)

    flat: Any = program
    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = signature
    flat.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return flat


def _is_class(hint: object) -> TypeGuard[type]:
    """Whether an annotation is a dataclass."""
    return isinstance(hint, type) and is_dataclass(hint)


def _parameters(command: Callable) -> Iterator[inspect.Parameter]:
    """The parameters of a stage, dataclasses as their fields, annotated with their texts."""
    from pipeline.runtime.options import comments

    hints, texts = get_type_hints(command), comments(command)
    for name, one in inspect.signature(command).parameters.items():
        hint = hints[name]
        if _is_class(hint):
            yield from _fields(hint, one)
        else:
            yield _explained(one, name, hint, one.default, texts)


def _fields(kind: type, place: inspect.Parameter) -> Iterator[inspect.Parameter]:
    """The fields of a dataclass, those of dataclasses inside it included; tuples become lists."""
    from pipeline.runtime.options import comments

    hints, texts = get_type_hints(kind), comments(kind)
    for field in fields(kind):
        hint, default = hints[field.name], field.default
        if _is_class(hint):
            yield from _fields(hint, place)
            continue
        if get_origin(hint) is tuple:
            hint = GenericAlias(list, get_args(hint)[:1])
            default = list(default) if isinstance(default, tuple) else default
        default = place.empty if default is MISSING else default
        yield _explained(place, field.name, hint, default, texts)


def _explained(
    place: inspect.Parameter, name: str, hint: Any, default: object, texts: Mapping[str, str]
) -> inspect.Parameter:
    """An option, or an argument, in the place of a stage's parameter, with its text in `--help`."""
    import typer

    from stages.arguments import ARGUMENTS

    kind = typer.Option if place.kind is place.KEYWORD_ONLY else typer.Argument
    text = kind(help=texts.get(name) or ARGUMENTS[name])
    return place.replace(name=name, default=default, annotation=Annotated[hint, text])


def _build(kind: type, values: dict[str, object]) -> object:
    """An instance of a dataclass from flat values, which are taken out of `values`."""
    hints = get_type_hints(kind)
    own: dict[str, Any] = {}
    for field in fields(kind):
        if _is_class(hint := hints[field.name]):
            own[field.name] = _build(hint, values)
        elif field.name in values:
            value = values.pop(field.name)
            own[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**own)


def execute(app: Callable) -> None:
    """Run a typer app; bad input becomes one sentence on stderr and exit status 2."""
    from concurrent.futures.process import BrokenProcessPool

    from pipeline.runtime.errors import Damaged, InputError
    from pipeline.runtime.lifelines import die_at_once, end_with_run

    die_at_once()
    end_with_run()
    try:
        app()
    except Damaged as error:
        if AGAIN in os.environ:
            _fail(error)
        print(f"warning: {error}; running again", file=sys.stderr, flush=True)
        os.environ[AGAIN] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
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
