"""Fingerprints: short hashes of all that determines an output, so that an output that exists under its address is
right.

An output is determined by the parameters its stage reads, the code of its stage, and the fingerprints of its inputs.
Code counts with every module of the package that it imports, and as far as it computes: comments, layout, docstrings,
annotations of functions, messages and descriptions do not count.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from functools import cache, partial
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from pipeline_src.core import digests, plugins
from pipeline_src.core.errors import UserError

LENGTH = 10  # hex digits: 40 bits, for the thousands of addresses that share a readable name
HEX = f"[0-9a-f]{{{LENGTH}}}"  # pattern of a fingerprint

# They find, name, check and report, but no number depends on them: an edit there must not retrain a thousand runs.
NEUTRAL = {
    "pipeline_src",
    "pipeline_src.study.runs",
    "pipeline_src.study.places",
    "pipeline_src.core.params",
    "pipeline_src.evaluation.params",
    "pipeline_src.training.params",
    "pipeline_src.features",
    "pipeline_src.features.local",
    "pipeline_src.features.storage",
    "pipeline_src.features.units",
    "pipeline_src.core.checksums",
    "pipeline_src.core.digests",
    "pipeline_src.core.errors",
    "pipeline_src.core.files",
    "pipeline_src.core.progress",
    "pipeline_src.core.plugins",
    "pipeline_src.core.registry",
    "pipeline_src.core.stages",
    "pipeline_src.training.machine",
    "pipeline_src.training.gpu",
    "pipeline_src.training.interrupt",
}

RULES = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()  # what counts of a source, as this file has it
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)  # what has a docstring


LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "warn"}  # calls of `log` and of `warnings`
DESCRIBED = {"description", "title"}  # keywords of pydantic's Field
DECLARED = {"Quantity"}  # what these calls hold is drawn and nothing else
LABELS = {"Metric": {"label", "unit", "caption"}}  # of what these calls hold, what is drawn; the name comes first
WORDS = {"refuses", "extension", "lacks", "unknown", "beyond"}  # functions of plug-ins that give a message or None


def fingerprint(**parts: Any) -> str:
    """Hash of named parts (anything JSON can hold), independent of their order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def code_digest(modules: Iterable[str]) -> str:
    """Hash of the modules and of every module of this package that they import, at any depth."""
    pending, seen = list(modules), {}
    while pending:
        module = pending.pop()
        if module not in seen and module not in NEUTRAL:
            seen[module], imports = _module(module)
            pending.extend(imports)
    return fingerprint(**seen)


def members_digest(module: str, names: Collection[str]) -> str:
    """Hash of what the classes of a module define under these names, with the module's constants, and the same of the
    modules of its package that it imports: for a stage that uses nothing else of the classes.
    """
    pending, seen = [module], {}
    while pending:
        module = pending.pop()
        if module not in seen:
            seen[module], imports = _members(module, frozenset(names))
            pending.extend(imports)
    return fingerprint(**seen)


def _members(module: str, names: frozenset[str]) -> tuple[str, list[str]]:
    """A module's part of `members_digest`, and the modules of its package that it imports."""
    package, kept = module.rpartition(".")[0], list[ast.AST]()
    for node in _Computing().visit(ast.parse(_source(module))).body:
        if isinstance(node, ast.ClassDef):
            kept += [part for part in node.body if _defined(part) & names]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            kept.append(node)
    imports = _imports(ast.parse(_source(module)), package)
    return _meaning(kept), [name for name in imports if name.rpartition(".")[0] == package]


def _defined(node: ast.AST) -> set[str]:
    """The names that a statement of a class defines."""
    match node:
        case ast.FunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


@cache
def _module(module: str) -> tuple[str, tuple[str, ...]]:
    """A module's hash and the modules of this package that it imports."""
    file = _found(module)
    folder = module if file.stem == "__init__" else module.rpartition(".")[0]
    # A template or a table of the same name belongs to its module.
    names = [f"{file.stem}.*.j2", f"{file.stem}.csv", f"{file.stem}.yaml"]
    own = {f.name: f.read_text(encoding="utf-8") for name in names for f in sorted(file.parent.glob(name))}
    source = _source(module)
    digest, asked = digests.remembered([RULES, folder, source, own], partial(_digest, folder, source, own))
    return digest, tuple(sorted(_ours(asked, folder)))


def _source(module: str) -> str:
    return _found(module).read_text(encoding="utf-8")


def _found(module: str) -> Path:
    file = _file(module)
    if file is None:
        raise UserError(
            f"{module}: expected a module of this package, but got no such file; fix the import that names it"
        )
    return file


def _digest(folder: str, source: str, own: dict[str, str]) -> list[Any]:
    """[the hash of a module's source with its own templates and tables, what it imports: see `_asked`]."""
    tree = ast.parse(source)
    asked = sorted(map(list, _asked(tree, folder)))
    return [fingerprint(code=_meaning(_Computing().visit(tree)), templates=own), asked]


class _Computing(ast.NodeTransformer):
    """What of a module computes: drops messages, descriptions, annotations of functions, imports for type checkers."""

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        return ast.Raise(exc=kind, cause=None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Assert(test=self.visit(node.test), msg=None)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        match node.value:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "warnings"), attr=attr)) if attr in LOGGING:
                return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if ast.unparse(node.value) == "logging.getLogger(__name__)" else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        return None if [alias.name for alias in node.names] in (["logging"], ["warnings"]) else node

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if _for_type_checkers(node):
            return [self.visit(part) for part in node.orelse]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name in DECLARED:
            return node.func
        if name in LABELS:
            node.args = node.args[:1]
            node.keywords = [word for word in node.keywords if word.arg not in LABELS[name]]
        if name == "Field":
            node.keywords = [word for word in node.keywords if word.arg not in DESCRIBED]
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        node.returns = None
        return None if node.name in WORDS else self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node


def _for_type_checkers(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _imports(tree: ast.Module, folder: str) -> set[str]:
    """The modules of this package, and of the user's, that a module imports."""
    return _ours(_asked(tree, folder), folder)


def _ours(asked: Iterable[Sequence[str]], folder: str) -> set[str]:
    """Of what a module imports, see `_asked`, the modules that are there."""
    found = {".".join(names) if _file(".".join(names)) else names[0] for names in asked}
    packages = {folder.partition(".")[0], "pipeline_src", *plugins.FOLDERS}
    return {name for name in found if name.partition(".")[0] in packages}


def _asked(tree: ast.Module, folder: str) -> set[tuple[str, ...]]:
    """What a module imports: (module,), or (module, name) of `from module import name`; the name may be a module."""
    found: set[tuple[str, ...]] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and _for_type_checkers(node):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            found.update((alias.name,) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), folder)
            found.update((base, alias.name) for alias in node.names)
    return found


def _file(module: str) -> Path | None:
    """The file of a module of this package, found without importing anything."""
    if (user := plugins.file(module)) is not None:
        return user
    path = Path(__file__).parents[2].joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _meaning(node: object) -> str:
    """A syntax tree as text, the same under every Python version: no comments, layout or docstrings."""
    if isinstance(node, list):
        return f"[{','.join(map(_meaning, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            value = value[1:]
        if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty pieces to f-strings
            value = [piece for piece in value if not (isinstance(piece, ast.Constant) and piece.value == "")]
        # Later versions have more fields, empty in code that earlier ones read.
        if value not in (None, []):
            parts.append(f"{name}={_meaning(value)}")
    return f"{type(node).__name__}({','.join(parts)})"
