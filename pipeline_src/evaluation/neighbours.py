"""t-SNE of test features: which samples are near each other (van der Maaten and Hinton, JMLR 2008).

For looking at, not for measuring: distances between clusters and their sizes say nothing. One thread and a fixed seed,
so that it repeats; at most MOST samples, evenly spread, as its time grows with their number.
"""

import numpy as np

MOST = 2000


def neighbours(features: np.ndarray, perplexity: float, most: int = MOST) -> np.ndarray:
    """Places (N, ..., 2) of features (N, ..., D) in the plane; NaN for those beyond `most`, 0 where all are equal.

    `perplexity` is lowered to a third of the other samples if there are so few.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    flat = features.reshape(-1, features.shape[-1]).astype(np.float32)
    rows = np.unique(np.linspace(0, len(flat) - 1, min(len(flat), most)).round().astype(int))
    places = np.full((len(flat), 2), np.nan)
    chosen = flat[rows]
    if len(rows) < 3 or not np.ptp(chosen, axis=0).any():
        places[rows] = 0.0
    else:
        effective = min(perplexity, (len(rows) - 1) / 3)
        start = "pca" if flat.shape[1] > 1 else "random"
        with threadpool_limits(1):
            places[rows] = TSNE(perplexity=effective, init=start, random_state=0).fit_transform(chosen)
    return places.reshape(*features.shape[:-1], 2)
