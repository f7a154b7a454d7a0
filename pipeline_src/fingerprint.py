"""Fingerprints: short hashes of all that determines an output, so that an output that exists under its address is
right.

An output is determined by the parameters its stage reads, the code of its stage, and the fingerprints of its inputs.
Code counts without comments, docstrings and layout, and with every module of the package that it imports.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

LENGTH = 10  # hex digits: 40 bits, for the thousands of addresses that share a readable name

# They find, name, check and report, but no number depends on them: an edit there must not retrain a thousand runs.
NEUTRAL = {
    "pipeline_src",
    "pipeline_src.config",
    "pipeline_src.errors",
    "pipeline_src.files",
    "pipeline_src.progress",
    "pipeline_src.registry",
}


def fingerprint(**parts: Any) -> str:
    """Hash of named parts (anything JSON can hold), independent of their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def code_digest(modules: Iterable[str]) -> str:
    """Hash of the modules and of every module of this package that they import, at any depth, wherever they import it."""
    pending, seen = list(modules), {}
    while pending:
        module = pending.pop()
        if module not in seen and module not in NEUTRAL:
            seen[module], imports = _module(module)
            pending.extend(imports)
    return fingerprint(**seen)


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's hash and the modules of this package that it imports."""
    source = _file(module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    return fingerprint(tokens=_tokens(source, tree)), tuple(_imports(tree, module.partition(".")[0]))


def _imports(tree: ast.Module, package: str) -> set[str]:
    found = set()
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if _file(full) else node.module)
    return {name for name in found if name == package or name.startswith(package + ".")}


def _file(module: str) -> Path | None:
    """The file of a module of this package, found without importing anything."""
    path = Path(__file__).parent.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _tokens(source: str, tree: ast.Module) -> list[str]:
    """The tokens that mean something, the same under every Python version: no comments, layout or docstrings."""
    docstrings = {
        (node.body[0].lineno, node.body[0].col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
    }
    lines = source.splitlines(keepends=True)
    kept, depth, start = [], 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        # Python 3.12 cuts an f-string in parts, 3.11 does not: take it whole.
        if kind == "FSTRING_START":
            depth, start = depth + 1, token.start if depth == 0 else start
        elif kind == "FSTRING_END":
            depth -= 1
            if depth == 0:
                kept.append(_between(lines, start, token.end))
        elif depth or kind in ("COMMENT", "NL", "ENCODING", "ENDMARKER"):
            continue
        elif kind in ("INDENT", "DEDENT", "NEWLINE"):
            kept.append(kind)
        elif not (kind == "STRING" and token.start in docstrings):
            kept.append(token.string)
    return kept


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    return "".join([lines[start[0] - 1][start[1] :], *lines[start[0] : end[0] - 1], lines[end[0] - 1][: end[1]]])
