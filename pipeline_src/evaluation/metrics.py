"""How much each modality adds to a fused model."""

import itertools
import math
from collections.abc import Callable


def contributions(modalities: list[str], value: Callable[[tuple[str, ...]], float]) -> dict[str, float]:
    """Shapley value of each modality: how much it adds to `value` (of a subset), averaged over all orders of joining.

    The values add up to value(all) - value(none).
    """
    m = len(modalities)
    worth = {s: value(s) for n in range(m + 1) for s in itertools.combinations(modalities, n)}
    shares = {}
    for one in modalities:
        others = [other for other in modalities if other != one]
        total = 0.0
        for n in range(m):
            weight = math.factorial(n) * math.factorial(m - n - 1) / math.factorial(m)
            for subset in itertools.combinations(others, n):
                joined = tuple(x for x in modalities if x in subset or x == one)
                total += weight * (worth[joined] - worth[subset])
        shares[one] = total
    return shares
