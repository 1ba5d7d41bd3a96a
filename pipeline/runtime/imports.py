"""What code a stage can run: the modules that it can import, and a digest of each.

Comments, docstrings and blank lines are left out of a digest, since they change no result.
"""

import ast
import hashlib
import importlib.util
import io
import tokenize
from functools import lru_cache
from pathlib import Path

from pipeline.runtime.files import fingerprint

PACKAGES = ("pipeline", "stages")


def closure(
    module: str,
    packages: tuple[str, ...] = PACKAGES,
    texts: tuple[str, ...] = (),  # modules that hold words for people alone: not traced
) -> dict[str, str]:
    """{module of `packages` that `module` can import, and itself: digest}, sorted.

    Imports inside functions count, and so do the packages around an imported module.
    """
    reached: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if (
            name in (*reached, *texts)
            or name.split(".")[0] not in packages
            or not (path := _path(name))
        ):
            continue
        reached[name], imported = _traced(path.read_text(encoding="utf-8"))
        waiting += [*imported, name.rpartition(".")[0]]
    return dict(sorted(reached.items()))


@lru_cache(maxsize=64)
def code_digest(module: str) -> str:
    """16 hex digits over the code that `module` can import, once per process."""
    return fingerprint(closure(module))


@lru_cache(maxsize=1024)
def _path(module: str) -> Path | None:
    """The file of a module; None if it is no module, as a function in `from module import it`."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path if path.is_file() else None


@lru_cache(maxsize=1024)  # most modules are reached from most stages
def _traced(source: str) -> tuple[str, list[str]]:
    """The digest of a file's source, and the names that it imports, modules or not."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return hashlib.sha256(substance(source).encode()).hexdigest(), names


def substance(source: str) -> str:
    """Python source without its comments, docstrings and blank lines."""
    lines, nodes = source.splitlines(), list(ast.walk(ast.parse(source)))
    opening = {
        node.body[0].lineno
        for node in nodes
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
        and (len(node.body) > 1 or isinstance(node, ast.Module))  # not the whole of a body
    }
    inside = {  # of strings over several lines, where a blank line counts
        line
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr)
        for line in range(node.lineno, node.end_lineno or node.lineno)
    }
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        (first, start), (last, end) = token.start, token.end
        text = token.type == tokenize.STRING and first in opening
        if token.type == tokenize.COMMENT or (text and not lines[first - 1][:start].strip()):
            kept = lines[first - 1][:start].rstrip() + lines[last - 1][end:]
            lines[first - 1 : last] = [kept, *[""] * (last - first)]
            inside -= set(range(first, last))
    return "\n".join(line for i, line in enumerate(lines, 1) if line or i in inside)
