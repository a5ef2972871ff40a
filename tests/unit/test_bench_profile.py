"""How the profiler attributes samples to functions."""

from tests.bench.profile import costs, table

ROOT = "<module> (ecrs/serve.py:44);run (asyncio/runners.py:160)"
RANK = f"{ROOT};RankService.rank_predict (ecrs/rank/service.py:26)"


def test_sample_counts_for_deepest_ecrs_function() -> None:
    below = (
        f"{RANK};Quantiles.levels (ecrs/features/quantiles.py:290);searchsorted (numpy/core/fromnumeric.py:1)"
    )
    counts = costs([f"{RANK} 2", f"{below} 3"])
    assert counts == {
        "`rank.service.RankService.rank_predict`": 2,
        "`features.quantiles.Quantiles.levels`": 3,
    }


def test_comprehension_counts_for_enclosing_function() -> None:
    inner = "Catalogue.rows.<locals>.<genexpr> (ecrs/features/catalogue.py:42)"
    assert costs([f"{RANK};{inner} 4"]) == {"`features.catalogue.Catalogue.rows`": 4}


def test_sample_without_ecrs_function_counts_for_event_loop() -> None:
    loop = f"{ROOT};BaseEventLoop._run_once (asyncio/base_events.py:1)"
    assert costs([f"{loop} 5"]) == {"event loop, and gRPC in it": 5}


def test_waiting_threads_cost_nothing() -> None:
    thread = "Thread._bootstrap (threading.py:988)"
    waiting = ["EpollSelector.select (selectors.py:451)", "_worker (concurrent/futures/thread.py:81)"]
    assert not costs([f"{thread};{frame} 9" for frame in waiting])


def test_table_rows_add_up_to_process_total() -> None:
    head, *rows = table("rank", 4.0, {"`a`": 75, "`b`": 24, "`c`": 1})
    assert head == "| **rank** | **4.00** | |"
    assert rows == ["| `a` | 3.00 | 75 % |", "| `b` | 0.96 | 24 % |", "| other | 0.04 | 1 % |"]


def test_idle_process_has_only_its_total() -> None:
    assert list(table("um", 0.1, {})) == ["| **um** | **0.10** | |"]
