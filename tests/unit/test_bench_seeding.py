"""The seeding benchmark runs and measures both loads on the same rows; speed itself is not tested."""

from ecrs.bundle import Bundle
from ecrs_seed.bundle_records import FILES
from tests.bench.seeding import measure


def test_seed_and_bulk_load_are_measured_on_the_same_rows(tiny: Bundle) -> None:
    result = measure(tiny, 2)
    assert result["rows"] == sum(tiny.count(name) for name in FILES)
    assert result["bytes"] > 100 * result["products"]
    assert set(result["rows_per_s"]) == {"bulk", "seed"}
    assert 0 < result["ratio"]["low"] <= result["ratio"]["ratio"] <= result["ratio"]["high"]
    assert result["store_bytes_per_row"] > 50
