"""Folders of the user's own with plug-ins: `plugins: [path, ...]` in params.yaml.

The Python files of a folder are the modules of a package of that folder's name, so that they may import each other
(`from .helper import x`), and registries and addresses treat them as they treat the package's own files.
"""

import importlib.util
import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path

from pipeline_src.core.errors import UserError

PREFIX = "plugins_"  # of the packages' names, so that no folder hides an installed package
FOLDERS: dict[str, Path] = {}  # package -> folder, of every params file that this process has read


def add(folder: str) -> None:
    """Make the files of a folder known. Raises ValueError if there is no such folder, or another of its name."""
    path = Path(folder).expanduser()
    if not path.is_dir() or not any(path.glob("*.py")):
        raise ValueError("expected a folder with Python files")
    package = PREFIX + path.resolve().name
    if not package.isidentifier():
        raise ValueError("expected a folder whose name consists of letters, digits and '_'")
    known = FOLDERS.get(package)
    if known is not None and known != path.resolve():
        raise ValueError(f"expected another name than that of {known}, as modules are named after their folder")
    FOLDERS[package] = path.resolve()
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(path.resolve())]
        sys.modules[package] = importlib.util.module_from_spec(spec)


def file(module: str) -> Path | None:
    """The file of a module of a user's folder, or None."""
    package, _, name = module.partition(".")
    if package not in FOLDERS:
        return None
    path = FOLDERS[package].joinpath(*name.split(".")).with_suffix(".py")
    return path if name and path.is_file() else None


def load(module: str) -> None:
    """Import a module. Raises UserError, with file and line, if a user's file cannot be imported."""
    try:
        importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:
        if module.partition(".")[0] not in FOLDERS:
            raise
        folder = str(FOLDERS[module.partition(".")[0]])
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{error.filename}:{error.lineno}"
        else:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(folder)]
            where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file(module))
        what = " ".join(str(error).split())
        raise UserError(f"{where}: {type(error).__name__}: {what}; fix the file or remove it") from error
