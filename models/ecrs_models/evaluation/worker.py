"""The part of an evaluation that runs in worker processes: the platform's answers for some of the users."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ecrs.bundle.arrays import Shape
from ecrs.features.catalogue import NO_ID
from ecrs_models.evaluation.baselines import LIST_LENGTH
from ecrs_models.evaluation.funnel import STAGES, stages
from ecrs_models.evaluation.offline_platform import BundleModels, OfflinePlatform
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.snapshots.snapshot import Snapshot

Lists = list[np.ndarray]
"""One list of item rows per user, best first."""


@dataclass(frozen=True)
class Answers:
    """The platform's answers for some users.

    `retrieval` and `ranked`: the lists before and after ranking; `funnel`: float64 (users, STAGES); `scores`,
    float32 (N,), and `label`, bool (N,): of the candidates of all these users.
    """

    retrieval: Lists
    ranked: Lists
    funnel: np.ndarray
    scores: np.ndarray
    label: np.ndarray

    @classmethod
    def concatenate(cls, parts: Iterable["Answers"]) -> "Answers":
        """Concatenate the answers of all parts."""
        parts = list(parts)
        return cls(
            [items for part in parts for items in part.retrieval],
            [items for part in parts for items in part.ranked],
            np.concatenate([part.funnel for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.label for part in parts]),
        )

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return arrays for a .npz file. Lists become rows of equal length, padded with NO_ID."""
        return vars(self) | {"retrieval": _padded(self.retrieval), "ranked": _padded(self.ranked)}

    @staticmethod
    def shapes(users: int, candidates: int) -> dict[str, tuple[str, Shape]]:
        """Return types and shapes of `as_arrays` for a number of users with a number of candidates."""
        lists = ("int32", (users, LIST_LENGTH))
        return {
            **{"retrieval": lists, "ranked": lists, "funnel": ("float64", (users, len(STAGES)))},
            **{"scores": ("float32", (candidates,)), "label": ("bool", (candidates,))},
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Answers":
        """Inverse of `as_arrays`."""
        retrieval, ranked = ([row[row != NO_ID] for row in arrays[name]] for name in ("retrieval", "ranked"))
        return cls(retrieval, ranked, arrays["funnel"], arrays["scores"], arrays["label"])


def _padded(lists: Lists) -> np.ndarray:
    rows = np.full((len(lists), LIST_LENGTH), NO_ID, dtype=np.int32)
    for row, items in zip(rows, lists, strict=True):
        row[: len(items)] = items
    return rows


class EvaluationWorker:
    """Computes the platform's answers for users of an evaluation period."""

    def __init__(self, snapshot: Snapshot, models: BundleModels, period: EvaluationPeriod) -> None:
        self._snapshot, self._period = snapshot, period
        self._platform = OfflinePlatform(snapshot, models)

    def answers(self, users: np.ndarray, task: str) -> Answers:
        """Answer for the given users in a task, and compare with its ground truth."""
        truth, period = self._period.truth_of(task), self._period
        retrieval, ranked, funnel, scores, label = [], [], [], [], []
        for user, answer in zip(
            users.tolist(), self._platform.answers(users, new_only=task == "new"), strict=True
        ):
            purchased = truth[user]
            aggregates = self._snapshot.encoded_aggregates(user).item
            retrieval.append(answer.candidates.item[:LIST_LENGTH])
            ranked.append(answer.ranked[:LIST_LENGTH])
            funnel.append(stages(answer, purchased, period.catalogue, period.bought(user), aggregates))
            scores.append(answer.scores)
            label.append(np.isin(answer.candidates.item, purchased))
        return Answers(
            retrieval,
            ranked,
            np.array(funnel).reshape(-1, len(STAGES)),
            np.concatenate(scores),
            np.concatenate(label),
        )

    def lists_as_new(self, users: np.ndarray, session: bool, profile: bool) -> tuple[Lists, Lists]:
        """Return the lists before and after ranking, with the users treated as new."""
        answers = list(self._platform.answers_as_new(users, session=session, profile=profile))
        before = [answer.candidates.item[:LIST_LENGTH] for answer in answers]
        return before, [answer.ranked[:LIST_LENGTH] for answer in answers]

    def user_vectors(self, users: np.ndarray) -> np.ndarray:
        """Return the user tower outputs of the given users, float32 (N, DIM)."""
        return self._platform.user_vectors(users)
