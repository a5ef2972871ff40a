"""A finished training to a bundle: the three models in Paddle Serving's layout, and all they serve with."""

import json
import shutil
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import inference
from paddle.utils import unique_name

from ecrs import bundle
from ecrs.actions import ActionType, Interaction
from ecrs.bundle import Bundle
from ecrs.domain import HISTORY_LENGTH, PROFILE_FIELDS, UNKNOWN, Item, User, format_history, parse_item
from ecrs.features import ITEM_TOWER_COLUMNS, USER_TOWER_COLUMNS
from ecrs.model.served import TOLERANCE
from ecrs.model.signature import ModelSignature
from ecrs.profiles import dump_item, dump_totals
from ecrs.rank.inputs import RankerInputs
from ecrs.ranking_features import CHANNELS, RANKER_COLUMNS, ranker_cardinality
from ecrs.recall.tables import save_proposer
from ecrs.sources import Source, Sources
from ecrs.totals import Totals
from ecrs_models import two_tower
from ecrs_models.dataset import PRODUCTS, USERS, Dataset
from ecrs_models.errors import DataError
from ecrs_models.evaluate import evaluate
from ecrs_models.gate import compare
from ecrs_models.inference import SavedModel
from ecrs_models.moments import Moment, Tables
from ecrs_models.platform import Models
from ecrs_models.served import multiply_by_onednn, served
from ecrs_models.training import MODELS, Settings, Trained, fingerprint
from ecrs_models.warm import WEIGHTS

GOLDEN_ROWS = 16
_FEED, _INT64, _FLOAT32 = "ids", 0, 1


def export(
    trained: Trained, data: Dataset, bundles: Path, *, measured: bool = True, gate: Bundle | None = None
) -> str:
    """Write the bundle under `bundles` and make it current; its version.

    Histories, totals, statistics and the channels' tables are as of the end of the data set, also where
    the models' training ended before. `measured`:
    evaluate on the period behind it, into metrics.json, or say there why that is impossible. `gate`: a
    bundle that the new one must not be worse than on that period.
    DataError if the data set is not the one that was trained on, an exported model does not do what the
    trained one did, or the gate is closed.
    """
    if trained.about["fingerprint"] != fingerprint(data):
        raise DataError(f"{data.path} is not the data set that was trained on")
    encoder, settings = trained.encoder, trained.settings
    version = bundle.new_version(trained.digest)
    now = int(data.log.ts.max()) + 1
    about = {
        "as_of": now,
        "data": {key: data.about[key] for key in ("name", "source", "counts", "split")},
        "dim": two_tower.DIM,
        "history_length": HISTORY_LENGTH,
        "training": trained.about["settings"],
    }
    with bundle.writing(bundles, version, about) as draft:
        parts = (
            ("user_tower", trained.two_tower.user_tower, USER_TOWER_COLUMNS, "embedding", two_tower.DIM),
            ("item_tower", trained.two_tower.item_tower, ITEM_TOWER_COLUMNS, "embedding", two_tower.DIM),
            ("ranker", trained.ranker, RANKER_COLUMNS, "score", 1),
        )
        for name, network, columns, fetch, width in parts:
            bounds = ranker_cardinality(encoder) if name == "ranker" else encoder.cardinality(columns)
            signature = ModelSignature(name, version, _FEED, fetch, columns, bounds, width)
            save_model(network, signature, draft / name)
        encoder.save(draft / "vocabulary")
        for name in (USERS, PRODUCTS):
            shutil.copyfile(data.path / name, draft / name)
        write_histories(data, draft / "histories.dat")

        item_tower = SavedModel(draft / "item_tower")
        tables = Tables.of(data, encoder)
        vectors = item_tower(tables.items)
        write_vectors(data.items["sku"].to_list(), vectors, draft / "product_vectors.txt")

        moment = Moment.of(data.log, now, tables, settings.tables, trained.curves)
        write_totals(moment, data, draft / "totals.dat")
        write_records(moment, data, draft / "product_info.dat")
        save_proposer(moment.proposer, draft / "recall")
        trained.quantiles.save(draft / "quantiles.json")
        (draft / WEIGHTS).mkdir()
        for name in MODELS:
            shutil.copyfile(trained.path / f"{name}.pdparams", draft / WEIGHTS / f"{name}.pdparams")

        golden = golden_rows(trained, data, moment)
        (draft / "golden.json").write_text(json.dumps(golden, indent=1), encoding="utf-8")
        user_tower, ranker = SavedModel(draft / "user_tower"), SavedModel(draft / "ranker")
        for model in (user_tower, item_tower, ranker):
            check_golden(model, golden[model.signature.model])

        models = Models(user_tower, vectors, ranker, trained.quantiles, trained.curves)
        metrics = measure(data, models, moment, settings) if measured else {}
        if gate:
            metrics["gate"] = compare(metrics, gate, data, settings.until)
        (draft / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return version


def measure(data: Dataset, models: Models, now: Moment, settings: Settings) -> dict[str, Any]:
    """The evaluation of the period after training, or why there is none."""
    if settings.until >= now.now:
        return {"not_measured": "trained on everything"}
    then = Moment.of(data.log, settings.until, now.tables, settings.tables)
    try:
        return evaluate(data, models, then).as_dict()
    except DataError as error:  # a shop without returning customers
        return {"not_measured": str(error)}


def save_model(network: Any, signature: ModelSignature, directory: Path) -> None:
    """`inference.pdmodel`, `.pdiparams`, the server's and the client's `.prototxt`, `signature.json`; of
    the trained network, in its served form."""
    directory.mkdir()
    spec = paddle.static.InputSpec([None, len(signature.columns)], "int64", name=signature.feed)
    network = served(network)
    network.eval()
    with unique_name.guard():  # the output's name does not depend on what was exported before
        paddle.jit.save(network, str(directory / "inference"), input_spec=[spec])
    (directory / "inference.pdiparams.info").unlink(missing_ok=True)
    if signature.model == "ranker":  # a tower's products, of one row, are faster without
        multiply_by_onednn(directory / "inference.pdmodel")
    signature.save(directory)
    program = inference.Config(str(directory / "inference.pdmodel"), str(directory / "inference.pdiparams"))
    program.disable_glog_info()
    text = serving_conf(signature, inference.create_predictor(program).get_output_names()[0])
    for name in ("serving_server_conf.prototxt", "serving_client_conf.prototxt"):
        (directory / name).write_text(text, encoding="utf-8")


def serving_conf(signature: ModelSignature, output_name: str) -> str:
    """Paddle Serving's GeneralModelConfig in text format; server and client read the same."""
    return (
        f'feed_var {{\n  name: "{signature.feed}"\n  alias_name: "{signature.feed}"\n'
        f"  is_lod_tensor: false\n  feed_type: {_INT64}\n  shape: {len(signature.columns)}\n}}\n"
        f'fetch_var {{\n  name: "{output_name}"\n  alias_name: "{signature.fetch}"\n'
        f"  is_lod_tensor: false\n  fetch_type: {_FLOAT32}\n  shape: {signature.width}\n}}\n"
    )


def write_histories(data: Dataset, path: Path) -> None:
    """Each user's newest interactions of the whole log, users without any left out."""
    log = data.log
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for user in np.unique(log.user):
            file.write(format_history(ids[user], interactions(data, user, skus)) + "\n")


def write_totals(moment: Moment, data: Dataset, path: Path) -> None:
    """Lines `id:JSON`, the JSON as the profile store holds it."""
    skus, ids = data.items["sku"].to_list(), data.users["user_id"].to_list()
    with open(path, "wb") as file:
        for user in np.flatnonzero(np.diff(moment.totals.start)).tolist():
            file.write(ids[user].encode() + b":" + dump_totals(totals_of(moment, user, skus)) + b"\n")


def totals_of(moment: Moment, user: int, skus: Sequence[str]) -> Totals:
    item, numbers = moment.totals.of(user)
    return Totals(tuple(skus[row] for row in item), numbers)


def write_records(moment: Moment, data: Dataset, path: Path) -> None:
    """Lines `sku:JSON`, the JSON as the profile store holds it, with statistics if it was bought; a line for
    each product."""
    sold, statistics = moment.sold.tolist(), moment.statistics.tolist()
    with open(data.path / PRODUCTS, encoding="utf-8") as products, open(path, "wb") as file:
        for line, was_sold, numbers in zip(products, sold, statistics, strict=True):
            # Nine digits bring every float32 back exactly, in half the bytes of a float64's.
            known = tuple(float(f"{number:.9g}") for number in numbers) if was_sold else ()
            item = replace(parse_item(line), statistics=known)
            file.write(item.sku.encode() + b":" + dump_item(item) + b"\n")


def interactions(data: Dataset, user: int, skus: Sequence[str]) -> tuple[Interaction, ...]:
    """The newest HISTORY_LENGTH interactions of the user in row `user`, newest first."""
    log = data.log
    end = int(log.start[user + 1])
    rows = range(end - 1, max(int(log.start[user]), end - HISTORY_LENGTH) - 1, -1)
    return tuple(
        Interaction(skus[log.item[row]], int(log.ts[row]), ActionType(int(log.type[row]))) for row in rows
    )


def write_vectors(skus: Sequence[str], vectors: np.ndarray, path: Path) -> None:
    """Lines `sku:[v1, v2, …]`; nine digits bring every float32 back exactly."""
    template = "%s:[" + ", ".join(["%.9g"] * vectors.shape[1]) + "]\n"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for sku, vector in zip(skus, vectors.tolist(), strict=True):
            file.write(template % (sku, *vector))


def golden_rows(trained: Trained, data: Dataset, moment: Moment) -> dict[str, Any]:
    """Raw users and items, each model's ids for them and the trained network's outputs.

    Row n of the ranker is user n with item n, as of `now`. Among the rows: full, short and empty
    histories, a new user by profile alone, a session without profile, unknown and never-seen values.
    """
    users, items = golden_users(data, moment), golden_items(data, moment)
    row = {sku: number for number, sku in enumerate(data.items["sku"])}
    for n, user in enumerate(users[: GOLDEN_ROWS // 4]):  # items of the user's own, for the crosses
        items[n] = golden_item(data, moment, row[user.history[n % len(user.history)].sku])
    encoder = trained.encoder
    inputs = RankerInputs(encoder, moment.tables.catalogue, trained.quantiles)
    said: list[list[Source]] = [
        [("again", n + 1, 2.5), ("similar", 0, 0.3)] if n < GOLDEN_ROWS // 2 else []
        for n in range(len(items))
    ]
    ranked = [
        inputs.ids(user, inputs.records([item]), Sources.of([of], CHANNELS), moment.now)
        for user, item, of in zip(users, items, said, strict=True)
    ]
    ids = {
        "user_tower": encoder.users(users),
        "item_tower": encoder.items(items),
        "ranker": np.concatenate(ranked),
    }
    networks: dict[str, Any] = {
        "user_tower": trained.two_tower.user_tower,
        "item_tower": trained.two_tower.item_tower,
        "ranker": trained.ranker,
    }
    golden: dict[str, Any] = {"now": moment.now, "users": [raw_user(user) for user in users]}
    golden |= {"items": [asdict(item) for item in items], "sources": said}
    for name, network in networks.items():
        outputs = network(paddle.to_tensor(ids[name])).numpy()
        golden[name] = {"ids": ids[name].tolist(), "outputs": outputs.tolist()}
    return golden


def raw_user(user: User) -> dict[str, Any]:
    """As JSON can hold it."""
    totals = {"skus": user.totals.skus, "numbers": user.totals.numbers.tolist()}
    history = [interaction._asdict() for interaction in user.history]
    return asdict(replace(user, totals=Totals(), history=())) | {"totals": totals, "history": history}


def golden_users(data: Dataset, moment: Moment) -> list[User]:
    """GOLDEN_ROWS users: the longest histories first, then the cases that break servers."""
    log = data.log
    skus = data.items["sku"].to_list()
    longest = np.argsort(log.start[:-1] - log.start[1:], kind="stable")
    step = np.linspace(0, min(len(longest), 4 * GOLDEN_ROWS) - 1, GOLDEN_ROWS - 6).astype(int)
    known: list[User] = []
    for row in longest[step].tolist():
        totals = totals_of(moment, row, skus)
        totals = Totals(totals.skus[:HISTORY_LENGTH], totals.numbers[:HISTORY_LENGTH])
        user_id, *fields = data.users.row(row)
        profile = dict(zip(PROFILE_FIELDS, fields, strict=True))
        known.append(User(user_id, **profile, history=interactions(data, row, skus), totals=totals))
    profile = {name: getattr(known[0], name) for name in PROFILE_FIELDS}
    unseen = dict.fromkeys(PROFILE_FIELDS, "never seen")
    session = tuple(Interaction(item.sku, item.ts, ActionType.VIEW) for item in known[0].history[:3])
    clicked, nonsense = Totals().plus(session), (Interaction("never seen", 1),)
    return [
        *known,
        replace(known[0], history=(), totals=Totals()),
        User(**profile),
        User(**profile, history=session, totals=clicked),
        User(history=session, totals=clicked),
        User(),
        User("never seen", **unseen, history=nonsense, totals=Totals().plus(nonsense)),
    ]


def golden_item(data: Dataset, moment: Moment, row: int) -> Item:
    sku, brand, shop, category = data.items.row(row)
    return Item(sku, brand, shop, category, tuple(moment.statistics[row].tolist()))


def golden_items(data: Dataset, moment: Moment) -> list[Item]:
    """GOLDEN_ROWS items, from across the catalogue, a new one of known make, and unknown ones."""
    rows = np.linspace(0, data.items.height - 1, GOLDEN_ROWS - 3).astype(int)
    known = [golden_item(data, moment, int(row)) for row in rows]
    first = known[0]
    return [
        *known,
        Item("never seen", first.brand, first.shop, first.category),
        Item("never seen", "never seen", "never seen", "never seen"),
        Item("never seen", UNKNOWN, UNKNOWN, UNKNOWN),
    ]


def check_golden(model: SavedModel, golden: dict[str, Any]) -> None:
    """DataError if the saved model's outputs are further than TOLERANCE from the golden ones."""
    found = model(np.array(golden["ids"], dtype=np.int64))
    off = float(np.abs(found - np.array(golden["outputs"], dtype=np.float32)).max())
    if not off <= TOLERANCE:
        raise DataError(f"the exported {model.signature.model} is {off:g} off its golden rows")
