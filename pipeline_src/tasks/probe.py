"""The linear probe: how much of the label a frozen encoder's features hold, whatever the fusion makes of them."""

import warnings

import numpy as np

from pipeline_src.core.errors import UserError


def linear_probe(
    train: np.ndarray, label: np.ndarray, others: list[np.ndarray], classes: int, c: float, iterations: int
) -> list[np.ndarray]:
    """Scores (N, classes) on each of `others` of a logistic regression fitted on the features `train` (N, D).

    Features are standardised with the statistics of `train`. A class without a training clip scores -inf. `c` is the
    inverse strength of the L2 penalty, fixed beforehand: nothing is tuned on the data that is scored. Raises UserError
    if the fit has not converged after so many `iterations`: its scores would speak of the solver, not of the features.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    seen = np.unique(label)
    if len(seen) == 1:  # nothing to separate
        found = [np.zeros((len(x), 1)) for x in others]
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=iterations))
        # One thread, so that the sums have one order and the probe repeats.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(train, label)
            except ConvergenceWarning as warning:
                said = str(warning).partition("\n")[0].rstrip(".:")
                raise UserError(
                    f"evaluation.probe_iterations: expected the linear probe to converge within {iterations} steps, "
                    f"but got: {said}; raise it, or lower evaluation.probe_c, which is {c:g}"
                ) from None
        found = [model.predict_log_proba(x) for x in others]
    scores = []
    for values in found:
        full = np.full((len(values), classes), -np.inf)
        full[:, seen] = values
        scores.append(full)
    return scores
