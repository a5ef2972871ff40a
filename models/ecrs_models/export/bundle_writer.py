"""Writes a finished training as a model bundle: the three models and everything that serving needs."""

import json
import shutil
import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from pathlib import Path
from typing import Any

from ecrs import bundle
from ecrs.bundle import FORMAT, Bundle, Manifest
from ecrs.bundle.manifest import DataAbout
from ecrs.domain.entities import HISTORY_LENGTH
from ecrs.rank.tables import save_item_statistics
from ecrs.recall.tables import save_candidate_generator
from ecrs.serving.expected_models import expected_signature
from ecrs_models.data.dataset import PRODUCTS, USERS, Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluation.evaluate import ANSWERS, evaluator
from ecrs_models.evaluation.offline_platform import BundleModels
from ecrs_models.evaluation.saved_model import SavedModel
from ecrs_models.export.gate import compare
from ecrs_models.export.golden import check_golden_rows, golden_rows
from ecrs_models.export.model_files import save_model
from ecrs_models.export.record_files import write_aggregates, write_histories, write_vectors
from ecrs_models.progress import Progress
from ecrs_models.snapshots.snapshot import EncodedTables, Snapshot
from ecrs_models.training import two_tower
from ecrs_models.training.pipeline import MODELS, TrainedModels
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.warm_start import WEIGHTS_DIR
from ecrs_models.training.weights import weights_path


def export(
    trained: TrainedModels,
    data: Dataset,
    bundles: Path,
    progress: Progress | None = None,
    *,
    measured: bool = True,
    gate: Bundle | None = None,
) -> str:
    """Write the bundle under `bundles`, make it the current one, and return its version.

    Histories, aggregates, statistics and the channels' tables are as of the end of the data set, even if the
    training ended earlier. With `measured`, the models are evaluated on the period after the training;
    metrics.json holds the results, or the reason if an evaluation is impossible. `gate` is a bundle that the
    new one is compared with on that period.

    Raises DataError if the data set is not the one used for training, if an exported model does not reproduce
    the outputs of the trained network on the golden examples, or if the new bundle is worse than `gate`.
    """
    if trained.about["fingerprint"] != data.fingerprint():
        raise DataError(f"{data.path} is not the data set that was used for training")
    progress = progress or Progress()
    encoder, settings = trained.encoder, trained.settings
    version = bundle.new_version(trained.digest)
    now = int(data.log.ts.max()) + 1
    manifest = Manifest(
        format=FORMAT,
        version=version,
        as_of=now,
        data=DataAbout(
            name=data.name,
            source=data.about["source"],
            counts=data.about["counts"],
            split=data.about["split"],
        ),
        training=trained.about["settings"],
        dim=two_tower.DIM,
        temperature=two_tower.TEMPERATURE,
        history_length=HISTORY_LENGTH,
    )
    with bundle.writing(bundles, manifest) as draft:
        for name, network in (
            ("user_tower", trained.two_tower.user_tower),
            ("item_tower", trained.two_tower.item_tower),
            ("ranker", trained.ranker),
        ):
            save_model(network, expected_signature(name, manifest, encoder), draft / name)
        encoder.save(draft / "vocabulary")
        for name in (USERS, PRODUCTS):
            shutil.copyfile(data.path / name, draft / name)
        write_histories(data, draft / "histories.dat")

        item_tower = SavedModel(draft / "item_tower")
        tables = EncodedTables.of(data, encoder)
        vectors = item_tower(tables.items)
        write_vectors(data.items["sku"].to_list(), vectors, draft / "product_vectors.txt")

        snapshot = Snapshot.of(data.log, now, tables, settings.tables, trained.curves)
        write_aggregates(snapshot, data, draft / "aggregates.dat")
        save_candidate_generator(snapshot.generator, draft / "recall")
        save_item_statistics(snapshot.statistics, draft)
        trained.quantiles.save(draft / "quantiles.json")
        (draft / WEIGHTS_DIR).mkdir()
        for name in MODELS:
            shutil.copyfile(weights_path(trained.path, name), weights_path(draft / WEIGHTS_DIR, name))

        golden = golden_rows(trained, data, snapshot)
        (draft / "golden.json").write_text(json.dumps(golden, indent=1), encoding="utf-8")
        user_tower, ranker = SavedModel(draft / "user_tower"), SavedModel(draft / "ranker")
        for model in (user_tower, item_tower, ranker):
            check_golden_rows(model, golden[model.signature.model])

        models = BundleModels(user_tower, vectors, ranker, trained.quantiles, trained.curves)
        metrics = measure(data, models, snapshot, settings, draft, progress) if measured else {}
        if gate:
            metrics["gate"] = compare(metrics, gate, data, settings.until)
        (draft / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return version


def measure(
    data: Dataset,
    models: BundleModels,
    now: Snapshot,
    settings: TrainingSettings,
    draft: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate on the period after training and save the platform's answers in the bundle `draft`.

    Returns the content of metrics.json: the evaluation, or `not_measured` with the reason.
    """
    if settings.until >= now.cutoff:
        return {"not_measured": "the training used the whole log"}
    then = Snapshot.of(data.log, settings.until, now.tables, settings.tables)
    try:
        with evaluator(data, models, then) as run:
            answers = run.answers(progress)
            run.save(answers, draft / ANSWERS)
            return run.compare(answers).as_dict()
    except DataError as error:  # a shop without returning customers
        return {"not_measured": str(error)}
