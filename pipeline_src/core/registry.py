"""Plug-ins: registered where they are defined, found without being imported.

A dataset, feature extractor, encoder, fusion or balancing method is one file in its package, whose class or
function carries `@<registry>.register("name")`. The names are read from the source text, so that params.yaml and the
Snakefile know them without paying for `import torch`, and a file that cannot be imported hurts only the runs that name
it.
"""

import ast
import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline_src.core import plugins
from pipeline_src.core.errors import UserError, brief, plain


class Registry:
    """The plug-ins of one package, by name.

    `noun` names the kind of plug-in in messages. Iterating gives the names in alphabetical order; `registry[name]`
    imports the file that defines the name and returns what was registered.
    """

    def __init__(self, package: str, noun: str):
        self.package, self.noun = package, noun
        self.variable = noun.split()[-1] + "s"  # the registry's own name, which files of a user's folder register by
        self._loaded: dict[str, Any] = {}
        self._entries: dict[str, tuple[str, dict[str, Any]]] = {}
        self._read_with: tuple | None = None  # the user's folders

    def register(self, name: str, **facts: Any) -> Callable:
        """Class decorator. Facts are constants that `facts` gives without an import; they become attributes.

        Raises ValueError if another definition has taken the name.
        """

        def decorate(plugin: Any) -> Any:
            taken = self._loaded.get(name)
            if taken is not None and taken.__module__ != plugin.__module__:
                raise ValueError(f"{self.noun} {name!r} is defined in {taken.__module__} and in {plugin.__module__}")
            for key, value in {"name": name, **facts}.items():
                setattr(plugin, key, value)
            self._loaded[name] = plugin
            return plugin

        return decorate

    @property
    def entries(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Name -> (dotted module, facts), from the package's files and those of the user's folders.

        Raises UserError if two files register one name.
        """
        known = tuple(plugins.FOLDERS.items())
        if known != self._read_with:
            self._entries, self._read_with = self._read(), known
        return self._entries

    def _read(self) -> dict[str, tuple[str, dict[str, Any]]]:
        spec = importlib.util.find_spec(self.package)
        ours = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
        folders: list[tuple[str, Path, str | None]] = [(self.package, Path(folder), None) for folder in ours]
        folders += [(package, folder, self.variable) for package, folder in plugins.FOLDERS.items()]
        entries: dict[str, tuple[str, dict[str, Any]]] = {}
        for package, folder, variable in folders:
            for file in sorted(folder.glob("*.py")):
                module = f"{package}.{file.stem}"
                for name, facts in _registrations(file, variable):
                    if name in entries:
                        raise UserError(
                            f"{self.noun} {name!r} is registered in {entries[name][0]} and in {module}; rename one"
                        )
                    entries[name] = module, facts
        return dict(sorted(entries.items()))

    def module(self, name: str) -> str:
        """Dotted module that defines `name`. Raises UserError, with the closest name, if there is none."""
        return self._entry(name)[0]

    def facts(self, name: str) -> dict[str, Any]:
        """Facts that `name` was registered with."""
        return self._entry(name)[1]

    def _entry(self, name: str) -> tuple[str, dict[str, Any]]:
        if name not in self.entries:
            raise UserError(self.unknown(name))
        return self.entries[name]

    def unknown(self, name: str) -> str:
        """What to say of a name that is not registered."""
        return f"expected a registered {self.noun}, but got {brief(name)}{closest(name, self.entries)}"

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            plugins.load(self.module(name))
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)


def closest(name: object, known: Iterable[object]) -> str:
    """`; did you mean 'x'? (known: ...)`, or ` (known: ...)`, for a message about an unknown name."""
    names = [plain(item) for item in known]
    match = difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.5)
    return (f"; did you mean {match[0]!r}?" if match else "") + f" (known: {', '.join(sorted(names)) or 'none'})"


def _registrations(file: Path, variable: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and facts of a file's `@<variable>.register("name", fact=...)`; None: whatever the variable is called."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: {error.msg}; fix the file or remove it") from error
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", ()):
            match decorator:
                case ast.Call(
                    func=ast.Attribute(value=owner, attr="register"),
                    args=[ast.Constant(value=str(name))],
                    keywords=facts,
                ) if variable is None or ast.unparse(owner).rpartition(".")[2] == variable:
                    yield name, {fact.arg: ast.literal_eval(fact.value) for fact in facts if fact.arg}
