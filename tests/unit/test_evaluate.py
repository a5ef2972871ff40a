"""The offline evaluation: metrics, baselines, funnel, calibration, and whole evaluations of a bundle."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ecrs.bundle import Bundle, BundleError
from ecrs.bundle.arrays import read_arrays
from ecrs.domain.actions import ActionType
from ecrs.domain.clock import DAY_S
from ecrs.features.ranking import CHANNELS
from ecrs.recall.blending import BlendedCandidates
from ecrs_models.data.dataset import ACTIONS, Dataset
from ecrs_models.data.split import Split
from ecrs_models.errors import DataError
from ecrs_models.evaluation import metrics
from ecrs_models.evaluation.baselines import (
    HistoryThenPopularity,
    Popularity,
    SegmentPopularity,
    profile_segments,
    without,
)
from ecrs_models.evaluation.calibration import ScoredCandidates, calibration, reliability
from ecrs_models.evaluation.evaluate import ANSWERS, LoadedBundle, evaluate, evaluator
from ecrs_models.evaluation.funnel import STAGES, index_loss, stages
from ecrs_models.evaluation.offline_platform import BundleModels, OfflineAnswer, OfflinePlatform
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.progress import Progress
from ecrs_models.snapshots.snapshot import EncodedTables, NearestItems, Snapshot
from ecrs_models.training.settings import TrainingSettings
from tests.tiny import tiny_data

HITS = np.array([True, False, True, False])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(tiny_data(tmp_path_factory.mktemp("evaluate") / "data"))


def test_recall_is_share_of_relevant_items_found() -> None:
    assert metrics.recall(HITS, 5, 4) == pytest.approx(2 / 5)
    assert metrics.recall(HITS, 5, 1) == pytest.approx(1 / 5)


def test_ndcg_discounts_by_rank_relative_to_ideal_list() -> None:
    best_of_three = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(HITS, 3, 4) == pytest.approx((1 + 1 / 2) / best_of_three)
    assert metrics.ndcg(HITS, 3, 1) == pytest.approx(1)
    assert metrics.ndcg(np.array([False, True]), 1, 20) == pytest.approx(1 / math.log2(3))
    assert metrics.ndcg(np.array([True, True]), 9, 2) == pytest.approx(1)


def test_hit_rate_is_one_for_any_hit_within_k() -> None:
    assert metrics.hit_rate(HITS, 1) == 1
    assert metrics.hit_rate(HITS[1:2], 20) == 0


def test_measure_matches_hand_computed_values() -> None:
    values = metrics.measure(np.arange(30), np.array([0, 25, 99]))
    assert values["recall@20"] == pytest.approx(1 / 3)
    assert values["recall@100"] == pytest.approx(2 / 3)
    assert values["ndcg@20"] == pytest.approx(1 / (1 + 1 / math.log2(3) + 1 / 2))
    nothing = metrics.measure(np.zeros(0, dtype=int), np.array([1]))
    assert set(nothing.values()) == {0}
    assert tuple(values) == metrics.METRICS


def test_coverage_is_share_of_catalogue_in_the_first_k_of_any_list() -> None:
    catalogue = np.array([True, True, True, True, False])
    lists = [np.array([0, 1, 2]), np.array([1, 4])]
    assert metrics.coverage(lists, catalogue, k=2) == pytest.approx(2 / 4)
    assert metrics.coverage(lists, catalogue, k=3) == pytest.approx(3 / 4)


def test_novelty_is_mean_self_information_in_bits() -> None:
    share = np.array([1 / 2, 1 / 4, 1 / 4])
    assert metrics.novelty(np.array([0]), share) == pytest.approx(1)
    assert metrics.novelty(np.array([0, 1, 2]), share, k=2) == pytest.approx(1.5)
    assert metrics.novelty(np.zeros(0, dtype=int), share) == 0


@pytest.fixture
def period(data: Dataset) -> EvaluationPeriod:
    """Users 0 and 1 buy before day 30, user 2 only after it; of items 0 to 5, 4 and 5 are new by then."""
    from tests.unit.test_training import log_of

    day = DAY_S
    log = log_of(
        *((0, 0, 1), (0, 1, 2 * day), (0, 1, 3 * day), (0, 2, 25 * day), (1, 2, 26 * day), (1, 3, 27 * day)),
        *((0, 1, 31 * day), (0, 1, 31 * day), (0, 5, 32 * day), (0, 3, 33 * day), (1, 4, 99 * day)),
        (2, 0, 31 * day),
        users=3,
    )
    small = replace(data, log=log, items=data.items[:6])
    return EvaluationPeriod.of(small, 30 * day, 40 * day)


def test_truth_is_distinct_items_of_warm_users_within_the_period(period: EvaluationPeriod) -> None:
    assert {user: items.tolist() for user, items in period.truth.items()} == {0: [1, 3, 5]}
    assert period.catalogue.tolist() == [True, True, True, True, False, False]


def test_popularity_counts_two_weeks_and_can_exclude_bought_items(period: EvaluationPeriod) -> None:
    assert Popularity(period)(1, False).tolist() == [2, 3, 1, 0]
    assert Popularity(period)(0, True).tolist() == [3]


def test_history_orders_by_count_then_recency_then_popularity(period: EvaluationPeriod) -> None:
    assert HistoryThenPopularity(period)(0, False).tolist() == [1, 2, 0, 3]
    assert HistoryThenPopularity(period)(0, True).tolist() == [3]


def test_profile_segments_number_distinct_profiles() -> None:
    assert profile_segments(np.array([[3, 1], [2, 9], [3, 1]])).tolist() == [1, 0, 1]


def test_segment_popularity_counts_purchases_of_equal_profiles(period: EvaluationPeriod) -> None:
    """In two weeks, user 0 bought 2, user 1 bought 2 and 3; by popularity over all users: 2, 3, 1, 0."""
    one_segment = SegmentPopularity(period, np.array([0, 0, 0]))
    assert one_segment(0, False).tolist() == [2, 3, 1, 0]
    assert one_segment(0, True).tolist() == [3]
    two_segments = SegmentPopularity(period, np.array([0, 1, 1]))
    assert two_segments(0, False).tolist() == [2, 3, 1, 0]


def test_without_keeps_order() -> None:
    assert without(np.array([5, 3, 9, 1]), np.array([9, 5])).tolist() == [3, 1]


def channel_candidates(items: list[int], channel: int) -> BlendedCandidates:
    """Return the candidates of one channel, in its order."""
    positions = np.full((len(items), len(CHANNELS)), np.nan, dtype=np.float32)
    positions[:, channel] = np.arange(1, len(items) + 1)
    return BlendedCandidates(
        np.array(items), positions, positions, np.full(len(items), 0.5, dtype=np.float32)
    )


def answer(items: list[int], channel: int, scores: list[float]) -> OfflineAnswer:
    """Return an answer from one channel; the first `len(scores)` retrieved items are the candidates."""
    retrieved = channel_candidates(items, channel)
    return OfflineAnswer(retrieved.first(len(scores)), np.array(scores, dtype=np.float32), retrieved)


def test_funnel_gives_share_left_at_each_stage() -> None:
    """Positive 9 was never sold; 1, 3 and 4 are retrieved; 4 is no candidate; 7 left the aggregates."""
    sold = np.ones(10, dtype=bool)
    sold[9] = False
    offline_answer = answer([1, 2, 3, 4], 1, [0.1, 0.2, 0.3])
    positives, bought, aggregates = np.array([1, 3, 4, 7, 9]), np.array([7, 1]), np.array([1])
    shares = dict(zip(STAGES, stages(offline_answer, positives, sold, bought, aggregates), strict=True))
    assert shares == pytest.approx(
        {
            **{"sold before": 0.8, "repurchase": 0, "similar": 0.6, "popular": 0, "vector": 0},
            **{"any channel": 0.6, "candidates": 0.4, "list of 100": 0.4, "list of 20": 0.4},
            **{"best 20 of the candidates": 0.4, "best 20": 1, "hidden by the cap": 0.2},
        }
    )


def test_list_of_twenty_cannot_hold_thirty_positives() -> None:
    thirty, everything = np.arange(30), np.ones(30, dtype=bool)
    offline_answer = answer(list(range(30)), 0, [0.5] * 30)
    shares = dict(zip(STAGES, stages(offline_answer, thirty, everything, thirty, thirty), strict=True))
    assert shares["candidates"] == 1
    assert shares["best 20"] == shares["list of 20"] == pytest.approx(2 / 3)


def test_index_of_small_catalogue_is_exact(tiny: Bundle) -> None:
    queries = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    loss = index_loss(tiny, queries)
    assert (loss["recall"], loss["queries"], loss["neighbours"]) == (1, 5, 100)


def test_calibration_matches_hand_computed_values() -> None:
    """Half are positives: predicting 0.5 is the baseline, predicting the labels has no entropy or error."""
    labels = np.array([True, True, False, False])

    def scored(*scores: float) -> ScoredCandidates:
        return ScoredCandidates(np.array(scores, dtype=np.float32), labels)

    baseline = calibration(scored(0.5, 0.5, 0.5, 0.5), bins=1)
    assert baseline == pytest.approx(
        {"normalised_entropy": 1, "expected_calibration_error": 0, "predicted_over_observed": 1}
    )
    perfect = calibration(scored(1, 1, 0, 0), bins=2)
    assert perfect["normalised_entropy"] == pytest.approx(0, abs=1e-6)
    biased = calibration(scored(0.9, 0.9, 0.2, 0.2), bins=2)
    assert biased["expected_calibration_error"] == pytest.approx(0.15, abs=1e-6)
    assert biased["predicted_over_observed"] == pytest.approx(1.1, abs=1e-6)
    curve = reliability(scored(0.9, 0.1, 0.2, 0.4), bins=2)
    assert [part["predicted"] for part in curve] == pytest.approx([0.15, 0.65])
    assert [part["observed"] for part in curve] == [0.5, 0.5]


def test_ranked_items_are_in_descending_order_of_score() -> None:
    assert answer([4, 5, 6], 0, [0.1, 0.3, 0.2]).ranked.tolist() == [5, 6, 4]


def test_candidates_are_the_first_retrieved_items(data: Dataset, tiny: Bundle) -> None:
    loaded = LoadedBundle.of(tiny, data)
    platform = OfflinePlatform(loaded.snapshot, loaded.models, candidates=20)
    (answer,) = platform.answers(np.array([5]))
    vectors = platform.user_vectors(np.array([5]))
    (nearest,) = NearestItems(loaded.models.vectors, loaded.snapshot.sold)(vectors)
    aggregates = loaded.snapshot.encoded_aggregates(5)
    alone = loaded.snapshot.with_curves(loaded.models.curves).blend(aggregates, nearest, 20)
    assert len(answer.retrieved.item) > 20
    for name in ("item", "positions", "scores", "precision"):
        assert np.array_equal(getattr(answer.candidates, name), getattr(alone, name), equal_nan=True)


def test_batch_size_does_not_change_rankings(
    data: Dataset, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedBundle.of(tiny, data)
    platform = OfflinePlatform(loaded.snapshot, loaded.models)
    users = np.arange(10)
    together = [answer.ranked.tolist() for answer in platform.answers(users)]
    monkeypatch.setattr("ecrs_models.evaluation.offline_platform.BATCH", 1)
    assert [answer.ranked.tolist() for answer in platform.answers(users)] == together


def test_worker_processes_give_the_same_evaluation(
    data: Dataset, tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = LoadedBundle.of(tiny, data)
    in_process = evaluate(data, loaded.models, loaded.snapshot).as_dict()
    monkeypatch.setattr("ecrs_models.parallel.MIN_ROWS", 0)
    monkeypatch.setattr("ecrs_models.evaluation.evaluate.CHUNK", 7)
    in_workers = evaluate(data, loaded.models, loaded.snapshot).as_dict()
    assert in_workers["tasks"] == in_process["tasks"]
    assert in_workers["funnel"] == in_process["funnel"]
    # Not exactly equal: sums of float32 in other batches.
    assert in_workers["calibration"] == pytest.approx(in_process["calibration"], rel=1e-6)


def test_saved_answers_are_read_back(data: Dataset, tiny: Bundle, tmp_path: Path) -> None:
    loaded = LoadedBundle.of(tiny, data)
    with evaluator(data, loaded.models, loaded.snapshot) as evaluation:
        assert evaluation.saved(tmp_path / "answers.npz") is None
        answers = evaluation.answers(Progress())
        evaluation.save(answers, tmp_path / "answers.npz")
        saved = evaluation.saved(tmp_path / "answers.npz")
        assert saved is not None
        assert evaluation.compare(saved).as_dict() == evaluation.compare(answers).as_dict()
    earlier = replace(loaded.snapshot, cutoff=loaded.snapshot.cutoff - 20 * DAY_S)
    with evaluator(data, loaded.models, earlier) as other:
        assert other.saved(tmp_path / "answers.npz") is None


WRONG_ANSWERS = {
    "no rows": (
        lambda arrays: arrays.update({"all.ranked": arrays["all.ranked"][:0]}),
        r"ranked: shape \(0, ",
    ),
    "other numbers": (lambda arrays: arrays.update({"new.funnel": np.zeros(3)}), r"funnel: shape \(3,\)"),
    "an unknown item": (lambda arrays: arrays["all.retrieval"].fill(10_000), "all.retrieval: a row that"),
    "one more": (lambda arrays: arrays.update(more=np.zeros(1)), "'more' is not expected"),
    "one less": (lambda arrays: arrays.pop("all.label"), r"label: float64, expected bool"),
}


@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_saved_answers_of_another_shape_are_refused(
    data: Dataset, tiny: Bundle, tmp_path: Path, case: str
) -> None:
    change, reason = WRONG_ANSWERS[case]
    arrays = {name: array.copy() for name, array in read_arrays(tiny.path / ANSWERS).items()}
    change(arrays)
    np.savez(tmp_path / ANSWERS, **arrays)
    loaded = LoadedBundle.of(tiny, data)
    with (
        evaluator(data, loaded.models, loaded.snapshot) as evaluation,
        pytest.raises(BundleError, match=rf"answers\.npz: .*{reason}"),
    ):
        evaluation.saved(tmp_path / ANSWERS)


def test_saved_answers_of_changed_data_are_not_read_back(data: Dataset, tiny: Bundle, tmp_path: Path) -> None:
    loaded = LoadedBundle.of(tiny, data)
    with evaluator(data, loaded.models, loaded.snapshot) as evaluation:
        evaluation.save(evaluation.answers(Progress()), tmp_path / "answers.npz")
    shutil.copytree(data.path, tmp_path / "changed")
    actions = pl.read_parquet(data.path / ACTIONS)
    pl.concat([actions, actions[:1]]).write_parquet(tmp_path / "changed" / ACTIONS)
    changed = Dataset.load(tmp_path / "changed")
    with evaluator(changed, loaded.models, loaded.snapshot) as evaluation:
        assert evaluation.saved(tmp_path / "answers.npz") is None


def test_log_without_orders_has_no_bought_items(data: Dataset) -> None:
    views = replace(data.log, type=np.full_like(data.log.type, ActionType.VIEW))
    split = data.split
    period = EvaluationPeriod.of(replace(data, log=views), split.test_from, split.until)
    assert len(period.truth) > 10
    assert period.truth_of("new").keys() == period.truth.keys()
    assert len(period.history(0)) > 0
    assert len(period.bought(0)) == 0


def test_new_users_are_described_by_profile_or_session(data: Dataset, tiny: Bundle) -> None:
    """A profile gives no history, a session a short one; without either, all users get the same ranking."""
    loaded = LoadedBundle.of(tiny, data)
    platform = OfflinePlatform(loaded.snapshot, loaded.models)
    users, repurchase = np.arange(10), CHANNELS.index("repurchase")

    def repurchase_counts(session: bool, profile: bool) -> list[int]:
        answers = platform.answers_as_new(users, session=session, profile=profile)
        return [int((~np.isnan(one.retrieved.positions[:, repurchase])).sum()) for one in answers]

    assert repurchase_counts(session=False, profile=True) == [0] * 10
    assert all(0 < count <= 5 for count in repurchase_counts(session=True, profile=True))
    unknown = [one.ranked.tolist() for one in platform.answers_as_new(users, session=False, profile=False)]
    assert all(ranked == unknown[0] for ranked in unknown)
    profiled = [one.ranked.tolist() for one in platform.answers_as_new(users, session=False, profile=True)]
    assert any(ranked != profiled[0] for ranked in profiled)


def test_evaluation_reproduces_metrics_of_the_export(data: Dataset, tiny: Bundle) -> None:
    loaded = LoadedBundle.of(tiny, data)
    evaluation = evaluate(data, loaded.models, loaded.snapshot).as_dict()
    for task, rows in tiny.metrics["tasks"].items():
        for name, values in rows.items():
            assert evaluation["tasks"][task][name] == pytest.approx(values, abs=1e-3)
    assert evaluation["funnel"]["all"] == pytest.approx(tiny.metrics["funnel"]["all"], abs=1e-3)


def test_data_set_with_other_products_is_refused(data: Dataset, tiny: Bundle) -> None:
    with pytest.raises(DataError, match="are not those of"):
        LoadedBundle.of(tiny, replace(data, items=data.items[1:]))


def test_period_without_warm_users_is_an_error(data: Dataset, tiny: Bundle) -> None:
    empty = replace(data, about=data.about | {"split": Split(1, 2, 3).__dict__})
    tables = EncodedTables.of(data, tiny.encoder)
    snapshot = Snapshot.of(data.log, 3, tables, TrainingSettings.read(tiny.manifest.training).tables)
    with pytest.raises(DataError, match="no user with earlier purchases buys anything"):
        evaluate(empty, BundleModels(*[None] * 5), snapshot)  # type: ignore[arg-type]
