"""Bundles with damaged or malformed files are refused, with an error that names the file and the line."""

import asyncio
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecrs.bundle import MANIFEST, Bundle, BundleError, Manifest
from ecrs.rpc.errors import Fault
from ecrs.serving.models import open_model
from ecrs.storage.vectors import read_vectors
from ecrs_models.errors import DataError
from ecrs_models.training.warm_start import WarmStart
from ecrs_seed.bundle_records import keys, user_records
from tests.tiny import resealed


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may damage."""
    return Path(shutil.copytree(tiny.path, tmp_path / tiny.version))


def test_truncated_file_is_refused_by_name(tiny: Bundle, copy: Path) -> None:
    for name in tiny.manifest.files:
        content = (copy / name).read_bytes()
        for cut in (content[:-1], content[: len(content) // 2], b""):
            (copy / name).write_bytes(cut)
            with pytest.raises(
                BundleError, match=f"{name}: {len(cut)} bytes, the manifest lists {len(content)}"
            ):
                Bundle.open(copy)
        (copy / name).write_bytes(content)
    Bundle.open(copy)


@pytest.mark.parametrize(
    ("garble", "reason"),
    [
        (lambda text: "", "Input data was truncated"),
        (lambda text: text[: len(text) // 2], "Input data was truncated"),
        (lambda text: "[]", "Expected `object`, got `array`"),
        (lambda text: "null", "Expected `object`, got `null`"),
        (lambda text: "\0" * 100, "JSON is malformed"),
        (lambda text: text.replace('"format": 5', '"format": 4'), "format 4, this code reads 5"),
        (lambda text: text.replace('"files"', '"flies"'), "user_tower/inference.pdmodel is not listed"),
        (
            lambda text: text.replace('"version": "', '"version": "../'),
            r"Expected `str` matching regex .*\$.version",
        ),
        (lambda text: text.replace('"as_of": ', '"as_of": -'), r"Expected `int` >= 0 - at `\$.as_of`"),
        (lambda text: text.replace('"as_of": ', '"since": '), "missing required field `as_of`"),
        (
            lambda text: text.replace('"sha256"', '"sha265"'),
            r"missing required field `sha256` - at `\$.files",
        ),
        (lambda text: text.replace('"lines"', '"liens"'), "is listed without a line count"),
    ],
)
def test_garbled_manifest_is_refused(copy: Path, garble: Callable[[str], str], reason: str) -> None:
    manifest = copy / MANIFEST
    manifest.write_text(garble(manifest.read_text()))
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{reason}"):
        Bundle.open(copy)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(data=st.data())
def test_manifest_with_arbitrary_value_opens_or_is_refused(tiny: Bundle, data: st.DataObject) -> None:
    manifest = json.loads((tiny.path / MANIFEST).read_text())
    section: Any = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(section)))
        if not isinstance(section[key], dict) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = data.draw(json_values)
    with suppress(BundleError):
        opened = Bundle(tiny.path, Manifest.parse(json.dumps(manifest).encode(), tiny.path / MANIFEST))
        assert isinstance(opened.version, str)
        assert opened.as_of >= 0
        assert opened.count("products.dat") >= 0


BAD_LINES = {
    "too few fields": (b"9:1:2\n", "expected 4 fields sku:brand:shop:category, found 3"),
    "too many fields": (b"9:1:2:3:4\n", "expected 4 fields sku:brand:shop:category, found 5"),
    "no sku": (b":1:2:3\n", "sku is empty"),
    "an empty line": (b"\n", "expected 4 fields sku:brand:shop:category, found 1"),
    "a sku twice": (b"1:3456:6980:70\n", "sku '1' appears twice"),
    "no UTF-8": (b"9:\xff\xfe:2:3\n", "not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_malformed_products_line_is_reported_by_number(copy: Path, case: str) -> None:
    line, reason = BAD_LINES[case]
    path = copy / "products.dat"
    number = path.read_bytes().count(b"\n") + 1
    path.write_bytes(path.read_bytes() + line)
    where = "" if case == "no UTF-8" else f":{number}"
    with pytest.raises(BundleError, match=rf"products\.dat{where}: {reason}"):
        resealed(copy).catalogue  # noqa: B018


@pytest.mark.parametrize("case", ["too few fields", "no sku", "an empty line", "no UTF-8"])
def test_gateway_logs_one_line_for_malformed_products_and_exits(copy: Path, case: str) -> None:
    line, reason = BAD_LINES[case]
    path = copy / "products.dat"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], line]))
    resealed(copy)
    done = start_service("gateway", copy)
    assert (done.returncode, done.stderr) == (3, "")
    (entry,) = map(json.loads, done.stdout.splitlines())
    number = len(lines)
    where = "" if case == "no UTF-8" else f":{number}"
    assert entry["event"] == "cannot start"
    assert entry["reason"].startswith(f"{path}{where}: {reason}")


def test_gateway_refuses_bundle_with_fewer_products_than_sales_shares(copy: Path) -> None:
    path = copy / "products.dat"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    resealed(copy)
    done = start_service("gateway", copy)
    assert (done.returncode, done.stderr) == (3, "")
    reason = json.loads(done.stdout)["reason"]
    assert reason == f"{copy / 'recall/popular.npy'}: shape (300,), expected (299,)"


@pytest.mark.parametrize(("name", "model"), [("recall", "user_tower"), ("rank", "ranker")])
def test_service_logs_one_line_for_damaged_parameters_and_exits(copy: Path, name: str, model: str) -> None:
    path = copy / model / "inference.pdiparams"
    path.write_bytes(path.read_bytes()[:-1])
    resealed(copy)
    done = start_service(name, copy)
    assert (done.returncode, done.stderr) == (3, "")
    (entry,) = map(json.loads, done.stdout.splitlines())
    assert entry["reason"].startswith(f"{path}: truncated in the parameter")


def start_service(name: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Run a service's program on a bundle until it exits."""
    environment = {"ECRS_BUNDLE": str(bundle), "ECRS_PORT": "0", "ECRS_METRICS_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "ecrs.serve", name],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_empty_catalogue_is_refused(copy: Path) -> None:
    (copy / "products.dat").write_bytes(b"")
    with pytest.raises(BundleError, match=r"products\.dat: no lines"):
        resealed(copy).catalogue  # noqa: B018


def test_last_line_may_lack_a_newline(tiny: Bundle, copy: Path) -> None:
    for name in ("products.dat", "product_vectors.txt"):
        (copy / name).write_bytes((copy / name).read_bytes().removesuffix(b"\n"))
    sealed = resealed(copy)
    assert sealed.catalogue.skus == tiny.catalogue.skus
    skus, _ = read_vectors(sealed.lines("product_vectors.txt"), sealed.count("product_vectors.txt"))
    assert skus == tiny.catalogue.skus


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"9:[0.5]\n", ":301: 1 values, expected 32"),
        (b"9:[NaN]\n", ":301: "),
        (b"9:0.5, 0.5\n", ":301: "),
        (b"9\n", ":301: "),
        (b"\n", ":301: "),
        (b"9:[" + b"0.5, " * 31 + b"1e39]\n", ":301: a value is not finite"),
        (b"9:[" + b"0.5, " * 31 + b'"0.5x"]\n', ":301: "),
        (b"1:[" + b"0.5, " * 31 + b"0.5]\n", ":301: sku '1' appears twice"),
        (b"\xff:[" + b"0.5, " * 31 + b"0.5]\n", ": not UTF-8"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_malformed_vectors_line_is_reported_by_number(copy: Path, line: bytes, reason: str) -> None:
    path = copy / "product_vectors.txt"
    path.write_bytes(path.read_bytes() + line)
    sealed = resealed(copy)
    with pytest.raises(BundleError, match=rf"product_vectors\.txt{reason}"):
        read_vectors(sealed.lines(path.name), sealed.count(path.name))


def test_empty_vectors_file_is_refused(copy: Path) -> None:
    (copy / "product_vectors.txt").write_bytes(b"")
    sealed = resealed(copy)
    with pytest.raises(BundleError, match=r"product_vectors\.txt: no lines"):
        read_vectors(sealed.lines("product_vectors.txt"), sealed.count("product_vectors.txt"))


# ---- Any damage to any file, also if the manifest describes the damaged file ----------------------


def use(bundle: Bundle) -> None:
    """Read everything in a bundle, as the services, the seeds and a later training do."""
    asyncio.run(serve(bundle))
    for record in (*user_records(bundle), *keys(bundle)):
        assert record
    bundle.metrics  # noqa: B018
    WarmStart.of(bundle)


async def serve(bundle: Bundle) -> None:
    """Build each service that reads the bundle, and run its health check."""
    async with AsyncExitStack() as stack:
        for name in ("recall", "rank", "gateway"):
            app = importlib.import_module(f"ecrs.{name}.app")
            service = await app.build(app.SETTINGS(bundle=bundle.path), stack)
            for check in (service.check, *service.dependencies.values()) if name != "gateway" else ():
                with suppress(Fault):
                    await check()
        await stack.enter_async_context(open_model("inprocess", bundle, "item_tower"))


def assert_used_or_refused(bundle_dir: Path) -> None:
    """Assert that a bundle works, or is refused in one line that names it or one of its files."""
    reason = None
    try:
        use(resealed(bundle_dir))
    except (BundleError, DataError) as refused:
        reason = str(refused)
    if reason:
        assert "\n" not in reason
        assert str(bundle_dir) in reason or "product_vectors.txt" in reason


def test_undamaged_bundle_can_be_used(tiny: Bundle) -> None:
    use(tiny)


def array(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=True)
    return content.getvalue()


REPLACEMENTS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("", lambda content: b""),
    "first half": ("", lambda content: content[: len(content) // 2]),
    "last half": ("", lambda content: content[len(content) // 2 :]),
    "one byte less": ("", lambda content: content[:-1]),
    "one byte more": ("", lambda content: content + b"\xff"),
    "zeros": ("", lambda content: bytes(len(content))),
    "twice": ("", lambda content: content + content),
    "deep JSON": ("json dat txt", lambda content: b"[" * 100_000 + b"]" * 100_000),
    "an empty object": ("json", lambda content: b"{}"),
    "other numbers": ("json dat txt", lambda content: re.sub(rb"\d+", b"7", content)),
    "huge numbers": ("json dat txt", lambda content: re.sub(rb"\d+", b"9" * 30, content)),
    "negative numbers": ("json dat txt", lambda content: re.sub(rb"\b(\d+)", rb"-\1", content)),
    "a scalar array": ("npy", lambda content: array(np.array(1.0))),
    "an array of another shape": ("npy", lambda content: array(np.zeros((7, 3), dtype=np.float32))),
    "an array of objects": ("npy npz", lambda content: array(np.array([{}], dtype=object))),
    "an array of NaN": ("npy", lambda content: array(np.full(300, np.nan))),
    "an array of large rows": ("npy", lambda content: array(np.full((300, 50), 300, dtype=np.int32))),
}
"""What replaces the content of the files with these suffixes, or of all files."""


@pytest.mark.parametrize("damage", REPLACEMENTS)
def test_any_replaced_file_is_refused_or_harmless(tiny: Bundle, copy: Path, damage: str) -> None:
    suffixes, replaced = REPLACEMENTS[damage]
    for name in tiny.manifest.files:
        if not suffixes or name.rpartition(".")[2] in suffixes.split():
            content = (copy / name).read_bytes()
            (copy / name).write_bytes(replaced(content))
            assert_used_or_refused(copy)
            (copy / name).write_bytes(content)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_bytes_are_refused_or_harmless(tiny: Bundle, copy: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tiny.manifest.files)))
    content = (tiny.path / name).read_bytes()
    # Near the start as often as anywhere, because there are the headers.
    start = data.draw(st.integers(0, min(len(content), 200)) | st.integers(0, len(content)))
    removed, inserted = data.draw(st.integers(0, 20)), data.draw(st.binary(max_size=20))
    (copy / name).write_bytes(content[:start] + inserted + content[start + removed :])
    assert_used_or_refused(copy)
    (copy / name).write_bytes(content)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_json_value_is_refused_or_harmless(tiny: Bundle, copy: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in tiny.manifest.files if name.endswith(".json")]))
    content = (tiny.path / name).read_text()
    document = section = json.loads(content)
    while True:
        key = data.draw(
            st.sampled_from(sorted(section) if isinstance(section, dict) else range(len(section)))
        )
        if not isinstance(section[key], dict | list) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[key] = data.draw(json_values)
    (copy / name).write_text(json.dumps(document))
    assert_used_or_refused(copy)
    (copy / name).write_text(content)
