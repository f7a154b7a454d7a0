"""torch, imported when it is first used.

Files that are read with params.yaml, such as a method's with its parameters, take torch from here, so that planning a
study does not pay seconds for an import that only training needs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
else:

    class _Torch:
        def __getattr__(self, name: str):
            import torch as imported  # a fifth of the time of importlib.import_module, a hundred times in a step

            return getattr(imported, name)

    torch = _Torch()
