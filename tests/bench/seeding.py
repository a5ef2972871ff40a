"""Compares the speed of seeding with the bulk rate of the store itself, in turns in one run.

python -m tests.bench.seeding [BUNDLE] [--rounds N] [--out FILE]: starts Valkey as `ecrs up` does. The bulk
rate is measured with the same bytes that the seed writes, packed before the clock starts and sent over one
connection without waiting for replies.

python -m tests.bench.seeding [BUNDLE] --milvus: measures the Milvus that ECRS_VECTORS and
ECRS_MILVUS_PASSWORD name, once. The bulk rate is measured with rows prepared before the clock starts.
"""

import argparse
import asyncio
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from subprocess import Popen
from typing import Any

import hiredis
import numpy as np
import redis

from ecrs.bundle import Bundle
from ecrs.domain.files import parse_item
from ecrs.local.valkey import valkey_command
from ecrs.recall.blending import DEPTH
from ecrs.settings import RedisSettings, VectorSettings
from ecrs.storage.milvus_vectors import MilvusVectors
from ecrs.storage.records import dump_item, item_key
from ecrs.storage.redis_profiles import open_redis
from ecrs.storage.vectors import read_vectors, sample_vectors
from ecrs_seed import milvus
from ecrs_seed.bundle_records import FILES, user_records
from ecrs_seed.redis import batches, seed_redis
from tests.bench.processes import ROOT
from tests.milvus import seed as seed_collection

SCRATCH = "bench_seeding"
"""Name of the temporary Milvus collection."""


@contextmanager
def valkey() -> Iterator[str]:
    """Run an empty Valkey, configured as in the embedded profile; yields the path of its socket."""
    with tempfile.TemporaryDirectory(prefix="ecrs-") as directory:
        path = f"{directory}/valkey.sock"
        process = Popen(valkey_command(Path(directory), path))
        try:
            while not Path(path).exists():
                time.sleep(0.02)
            yield path
        finally:
            process.terminate()
            process.wait()


def bulk(path: str, commands: Sequence[bytes]) -> float:
    """Send the commands and return the seconds until the store has answered all of them."""
    with socket.socket(socket.AF_UNIX) as store:
        store.connect(path)
        replies = hiredis.Reader()
        begun = time.monotonic()
        sender = threading.Thread(target=lambda: [store.sendall(command) for command in commands])
        sender.start()
        for _ in commands:
            while (reply := replies.gets()) is False:
                replies.feed(store.recv(65536))
            if reply != b"OK":
                raise RuntimeError(f"the store answered {reply!r}")
        took = time.monotonic() - begun
        sender.join()
    return took


async def seed(bundle: Bundle, path: str) -> float:
    """Seed the store and return the seconds that it took."""
    async with open_redis(RedisSettings(redis_url=f"unix://{path}")) as store:
        return (await seed_redis(bundle, store, wait_s=10)).took_s


def measure(bundle: Bundle, rounds: int) -> dict[str, Any]:
    """Measure bulk writes and the seed in turns, over an empty Valkey; return the results."""
    items = ((item_key(item.sku), dump_item(item)) for item in bundle.records("products.dat", parse_item))
    records = chain(user_records(bundle), items)
    commands = [hiredis.pack_command(("MSET", *chain(*batch))) for batch in batches(records)]
    rows = sum(bundle.count(name) for name in FILES)
    took: dict[str, list[float]] = {"bulk": [], "seed": []}
    memory = 0
    with valkey() as path, redis.Redis(unix_socket_path=path) as store:
        store.ping()
        empty = store.info("memory")["used_memory"]
        for _ in range(rounds):
            store.flushall(asynchronous=False)
            took["bulk"].append(bulk(path, commands))
            store.flushall(asynchronous=False)
            took["seed"].append(asyncio.run(seed(bundle, path)))
            memory = store.info("memory")["used_memory"]
    ratios = np.array(took["bulk"]) / np.array(took["seed"])
    resampled = np.random.default_rng(0).choice(ratios, (2000, rounds)).mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5]).round(2).tolist()
    return {
        "bundle": bundle.version,
        "products": bundle.count("products.dat"),
        "rows": rows,
        "bytes": sum(map(len, commands)),
        "rows_per_s": {name: round(rows / np.median(seconds)) for name, seconds in took.items()},
        "seed_s": round(float(np.median(took["seed"])), 2),
        "ratio": {"ratio": round(float(ratios.mean()), 2), "low": low, "high": high},
        "store_bytes_per_row": round((memory - empty) / rows),
    }


def measure_milvus(bundle: Bundle) -> dict[str, Any]:
    """Measure bulk inserts and then the seed, over a running Milvus; return the results."""
    settings = VectorSettings()
    client = asyncio.run(milvus.connect(settings, wait_s=60))
    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
    client.drop_collection(SCRATCH)
    milvus.create(client, SCRATCH, vectors.shape[1])
    prepared = [milvus.batch_of(skus, vectors, start) for start in range(0, len(skus), milvus.BATCH)]
    begun = time.monotonic()
    for batch in prepared:
        client.insert(SCRATCH, batch)
    bulk_s = time.monotonic() - begun
    client.drop_collection(SCRATCH)
    written: list[float] = []
    begun = time.monotonic()
    seeded = asyncio.run(seed_collection(bundle, client, lambda rows: written.append(time.monotonic())))
    return {
        "bundle": bundle.version,
        "products": len(skus),
        "rows_per_s": {"bulk": round(len(skus) / bulk_s), "seed": round(len(skus) / (written[-1] - begun))},
        "ratio": round(bulk_s / (written[-1] - begun), 2),
        "seed_s": round(seeded.took_s, 1),
        "search_p50_ms": asyncio.run(search_p50_ms(settings, vectors)),
    }


async def search_p50_ms(settings: VectorSettings, vectors: np.ndarray) -> float:
    took = []
    async with MilvusVectors.connect(settings) as store:
        for vector in sample_vectors(vectors):
            begun = time.perf_counter()
            await store.search(vector, DEPTH, 5.0)
            took.append(time.perf_counter() - begun)
    return round(float(np.median(took)) * 1000, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.seeding")
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "artifacts" / "bundles" / "current")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench" / "seeding.json")
    parser.add_argument("--milvus", action="store_true")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    results = measure_milvus(bundle) if arguments.milvus else measure(bundle, arguments.rounds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
