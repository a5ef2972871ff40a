"""Served models: Paddle Inference in this process and, if configured, Paddle Serving."""

import os
from collections.abc import AsyncIterator

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.rpc.errors import Unavailable
from ecrs.serving.models import open_model
from ecrs.serving.served_model import ServedModel, check_golden
from ecrs.serving.signature import MAX_ROWS, InvalidInput, ModelSignature
from tests.fakes import FakeModel
from tests.store.conftest import configured

BACKENDS = [
    (name, backend)
    for name, variable in (
        ("user_tower", "ECRS_TEST_USER_TOWER"),
        ("item_tower", "ECRS_TEST_ITEM_TOWER"),
        ("ranker", "ECRS_TEST_RANKER"),
    )
    for backend in ("inprocess", *configured(variable))
]


@pytest.fixture(params=BACKENDS, ids=lambda backend: "-".join(backend))
async def model(request: pytest.FixtureRequest, served_bundle: Bundle) -> AsyncIterator[ServedModel]:
    name, backend = request.param
    url = os.environ.get(backend, backend)
    async with open_model(url, served_bundle, name) as served:
        yield served


def golden(model: ServedModel, bundle: Bundle) -> dict:
    return bundle.golden[model.signature.model]


async def test_golden_rows_are_reproduced(model: ServedModel, served_bundle: Bundle) -> None:
    await check_golden(model, golden(model, served_bundle), 5.0)


async def test_row_does_not_depend_on_its_batch(model: ServedModel, served_bundle: Bundle) -> None:
    ids = np.array(golden(model, served_bundle)["ids"], dtype=np.int64)
    together = await model.infer(ids, 5.0)
    alone = np.concatenate([await model.infer(ids[n : n + 1], 5.0) for n in range(len(ids))])
    assert np.abs(together - alone).max() < 1e-6


async def test_largest_batch_is_answered(model: ServedModel, served_bundle: Bundle) -> None:
    row = np.array(golden(model, served_bundle)["ids"][:1], dtype=np.int64)
    outputs = await model.infer(np.repeat(row, MAX_ROWS, axis=0), 5.0)
    assert outputs.shape == (MAX_ROWS, model.signature.width)
    assert outputs.dtype == np.float32


INVALID_INPUTS = {
    "empty": lambda ids, _: ids[:0],
    "too many": lambda ids, _: np.repeat(ids[:1], MAX_ROWS + 1, axis=0),
    "too narrow": lambda ids, _: ids[:, :-1],
    "flat": lambda ids, _: ids[0],
    "negative": lambda ids, _: np.where(np.arange(ids.shape[1]) == 0, -1, ids),
    "beyond the vocabulary": lambda ids, signature: np.where(
        np.arange(ids.shape[1]) == 3, signature.cardinality[3], ids
    ),
}


@pytest.mark.parametrize("case", INVALID_INPUTS)
async def test_invalid_input_is_refused_without_affecting_the_next_call(
    model: ServedModel, served_bundle: Bundle, case: str
) -> None:
    ids = np.array(golden(model, served_bundle)["ids"], dtype=np.int64)
    with pytest.raises(InvalidInput):
        await model.infer(INVALID_INPUTS[case](ids, model.signature), 5.0)
    await check_golden(model, golden(model, served_bundle), 5.0)


def test_out_of_range_id_is_reported_with_row_and_column(tiny: Bundle) -> None:
    signature = ModelSignature.load(tiny.path / "ranker")
    ids = np.zeros((3, len(signature.columns)), dtype=np.int64)
    ids[2, 1] = 10**12
    with pytest.raises(InvalidInput, match=r"row 2, age: id 1000000000000 is not in \[0, "):
        signature.check(ids)


def test_input_that_is_not_integer_is_refused(tiny: Bundle) -> None:
    signature = ModelSignature.load(tiny.path / "ranker")
    with pytest.raises(InvalidInput, match="expected int64, got float64"):
        signature.check(np.zeros((1, len(signature.columns))))


async def test_wrong_golden_rows_make_the_model_unavailable(tiny: Bundle) -> None:
    signature = ModelSignature.load(tiny.path / "ranker")
    broken = FakeModel(signature, lambda ids: np.full((len(ids), 1), np.nan))
    with pytest.raises(Unavailable, match="golden rows are off"):
        await check_golden(broken, tiny.golden["ranker"], 1.0)


async def test_unreachable_model_server_is_unavailable(tiny: Bundle) -> None:
    async with open_model("serving://127.0.0.1:1", tiny, "ranker") as model:
        with pytest.raises(Unavailable, match=r"ranker at 127\.0\.0\.1:1"):
            await check_golden(model, tiny.golden["ranker"], 2.0)
