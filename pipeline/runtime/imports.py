"""What code a stage can run: the modules that it imports, and a digest of each.

Comments, docstrings and blank lines are left out of a digest, since they change no result.
"""

import ast
import hashlib
import importlib.util
import io
import tokenize
from collections.abc import Collection, Iterable
from pathlib import Path


def closures(
    modules: Iterable[str],
    packages: Iterable[str],
    texts: Collection[str] = (),  # modules that hold words for people alone, not traced
) -> dict[str, dict[str, str]]:
    """{module: {each module of `packages` that it can import, and itself: digest}}.

    Imports inside functions count, and so do the packages around an imported module.
    """
    import grimp

    graph = grimp.build_graph(*packages, cache_dir=None)
    digests = {name: digest(_path(name)) for name in graph.modules if name not in texts}
    found = {}
    for module in modules:
        reached, waiting = set(), [module]
        while waiting:
            name = waiting.pop()
            if name not in reached and name in digests:
                reached.add(name)
                parent = name.rpartition(".")[0]
                waiting += [*graph.find_modules_directly_imported_by(name), parent]
        found[module] = {name: digests[name] for name in sorted(reached)}
    return found


def _path(module: str) -> Path:
    package, *rest = module.split(".")
    path = Path(importlib.util.find_spec(package).origin).parent.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def digest(path: Path) -> str:
    """sha256 of a file's substance."""
    return hashlib.sha256(substance(path.read_text(encoding="utf-8")).encode()).hexdigest()


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
        for line in range(node.lineno, node.end_lineno)
    }
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        (first, start), (last, end) = token.start, token.end
        text = token.type == tokenize.STRING and first in opening
        if token.type == tokenize.COMMENT or (text and not lines[first - 1][:start].strip()):
            kept = lines[first - 1][:start].rstrip() + lines[last - 1][end:]
            lines[first - 1 : last] = [kept, *[""] * (last - first)]
            inside -= set(range(first, last))
    return "\n".join(line for i, line in enumerate(lines, 1) if line or i in inside)
