"""Distillation: the teacher model, boosted trees whose predictions the ranker learns beside the labels.

On tables of numbers, trees are better than a network, but they cannot be served as one more Paddle model. A
network that also learns their predictions comes close to them.
Source: Ke et al., "DeepGBM: a deep learning framework distilled by GBDT", KDD 2019.
"""

from collections.abc import Callable

import lightgbm
import numpy as np

from ecrs_models.training.ranking_examples import RankingExamples

PARAMETERS = {
    "objective": "binary",
    "metric": "none",
    "learning_rate": 0.07,
    "num_leaves": 63,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}


def teacher_predictions(
    examples: RankingExamples, rounds: int, seed: int, advance: Callable[[], None]
) -> np.ndarray:
    """Fit the teacher model and return its predictions for the same examples: probabilities, float32 (N,).

    `rounds` is the number of trees; `advance` is called after each of them.
    """
    features = examples.levels.astype(np.float32)
    data = lightgbm.Dataset(features, examples.label, weight=examples.weight)
    leaf = int(np.clip(len(features) // 5000, 20, 200))
    parameters = {**PARAMETERS, "min_data_in_leaf": leaf, "seed": seed}
    predictions = np.zeros(len(features))

    def keep(scores: np.ndarray, _: lightgbm.Dataset) -> tuple[str, float, bool]:
        """Copy the predictions, which lightgbm computes each round; predicting again would take longer."""
        predictions[:] = scores
        return "none", 0.0, True

    lightgbm.train(parameters, data, rounds, valid_sets=[data], feval=keep, callbacks=[lambda _: advance()])
    return predictions.astype(np.float32)
