"""The benchmark of seeding runs, and of the same bytes; how fast either is, no test says."""

from ecrs.bundle import Bundle
from ecrs_seed.bundle_records import FILES
from tests.bench.seeding import measure


def test_seed_and_bulk_are_measured_on_the_same_rows(tiny: Bundle) -> None:
    found = measure(tiny, 2)
    assert found["rows"] == sum(tiny.count(name) for name in FILES)
    assert found["bytes"] > 100 * found["products"]
    assert set(found["rows_per_s"]) == {"bulk", "seed"}
    assert 0 < found["ratio"]["low"] <= found["ratio"]["ratio"] <= found["ratio"]["high"]
    assert found["store_bytes_per_row"] > 50
