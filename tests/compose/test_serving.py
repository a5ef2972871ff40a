"""The Paddle Serving containers: golden rows, refused input, shutdown, and models that cannot be served."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import grpc
import numpy as np
import pytest

from ecrs.contract.pipeline_service_pb2 import Request, Response, Tensor
from ecrs.contract.pipeline_service_pb2_grpc import PipelineServiceStub
from ecrs.serving.signature import ModelSignature
from tests.compose.conftest import Stack, run, wait_until

BAD_REQUEST = 51
BAD_MODEL = 4
MODELS = {
    "user_tower": "serving-user-tower",
    "item_tower": "serving-item-tower",
    "ranker": "serving-ranker",
}


@dataclass
class Served:
    signature: ModelSignature
    stub: PipelineServiceStub
    golden_ids: np.ndarray
    golden_outputs: np.ndarray

    def call(self, *tensors: Tensor, name: str = "", **fields: list[str]) -> Response:
        return self.stub.inference(Request(name=name, tensors=tensors, **fields), timeout=5)

    def tensor(self, ids: np.ndarray, **fields: object) -> Tensor:
        valid = {"name": self.signature.feed, "elem_type": 0, "shape": ids.shape, "int64_data": ids.ravel()}
        return Tensor(**(valid | fields))

    def outputs(self, ids: np.ndarray) -> np.ndarray:
        reply = self.call(self.tensor(ids), name=self.signature.model)
        assert (reply.err_no, reply.err_msg) == (0, "")
        (answer,) = reply.tensors
        assert answer.name == self.signature.fetch
        return np.array(answer.float_data, dtype=np.float32).reshape(answer.shape)

    def check_golden(self) -> None:
        np.testing.assert_allclose(self.outputs(self.golden_ids), self.golden_outputs, rtol=0, atol=1e-5)


@pytest.fixture(params=MODELS)
def served(request: pytest.FixtureRequest, stack: Stack, bundle_dir: Path) -> Iterator[Served]:
    golden = json.loads((bundle_dir / "golden.json").read_text())[request.param]
    signature = ModelSignature.load(bundle_dir / request.param)
    with grpc.insecure_channel(f"{stack.address(MODELS[request.param])}:9998") as channel:
        stub = PipelineServiceStub(channel)
        yield Served(signature, stub, np.array(golden["ids"]), np.array(golden["outputs"], dtype=np.float32))


def test_the_server_reproduces_the_golden_rows(served: Served) -> None:
    served.check_golden()


def test_the_answer_contains_the_bundle_version(served: Served) -> None:
    reply = served.call(served.tensor(served.golden_ids))
    assert dict(zip(reply.key, reply.value, strict=True)) == {"version": served.signature.version}


def test_calls_in_one_batch_get_their_own_rows(served: Served) -> None:
    calls = [
        served.stub.inference.future(
            Request(tensors=[served.tensor(np.roll(served.golden_ids, turn, axis=0)[: turn % 3 + 1])])
        )
        for turn in range(200)
    ]
    for turn, call in enumerate(calls):
        (answer,) = call.result(timeout=10).tensors
        expected = np.roll(served.golden_outputs, turn, axis=0)[: turn % 3 + 1]
        np.testing.assert_allclose(
            np.array(answer.float_data).reshape(answer.shape), expected, rtol=0, atol=1e-5
        )


def test_a_thousand_rows_are_accepted(served: Served) -> None:
    ids = np.resize(served.golden_ids, (1000, served.golden_ids.shape[1]))
    expected = np.resize(served.golden_outputs, (1000, served.signature.width))
    np.testing.assert_allclose(served.outputs(ids), expected, rtol=0, atol=1e-5)


def with_last(ids: np.ndarray, value: int) -> np.ndarray:
    changed = ids.copy()
    changed[-1, -1] = value
    return changed


REFUSED = {
    "empty batch": (lambda s: s.call(s.tensor(s.golden_ids[:0])), "expected 1 to 1000 rows, got 0"),
    "too many rows": (
        lambda s: s.call(s.tensor(np.resize(s.golden_ids, (1001, s.golden_ids.shape[1])))),
        "expected 1 to 1000 rows, got 1001",
    ),
    "negative id": (lambda s: s.call(s.tensor(with_last(s.golden_ids, -1))), "id -1 is not in"),
    "id above the table": (
        lambda s: s.call(s.tensor(with_last(s.golden_ids, s.signature.cardinality[-1]))),
        "is not in [0, ",
    ),
    "a column missing": (lambda s: s.call(s.tensor(s.golden_ids[:, 1:])), "expected shape [N, "),
    "shape and data differ": (
        lambda s: s.call(s.tensor(s.golden_ids, shape=[len(s.golden_ids) + 1, s.golden_ids.shape[1]])),
        "does not hold",
    ),
    "negative shape": (
        lambda s: s.call(s.tensor(s.golden_ids, shape=[-len(s.golden_ids), -s.golden_ids.shape[1]])),
        "does not hold",
    ),
    "floats": (
        lambda s: s.call(Tensor(name=s.signature.feed, elem_type=1, shape=[1, 1], float_data=[1])),
        "expected elem_type 0 (int64), got 1",
    ),
    "pickle": (
        lambda s: s.call(Tensor(name=s.signature.feed, elem_type=13, byte_data=b"\x80\x04N.")),
        "expected elem_type 0 (int64), got 13",
    ),
    "strings in the tensor": (
        lambda s: s.call(Tensor(name=s.signature.feed, elem_type=12, str_data=["[[0]]"])),
        "expected elem_type 0 (int64), got 12",
    ),
    "strings beside the tensor": (
        lambda s: s.call(s.tensor(s.golden_ids), key=["ids"], value=["__import__('os')"]),
        "string values are not accepted",
    ),
    "level of detail": (lambda s: s.call(s.tensor(s.golden_ids, lod=[0, 1])), "lod is not accepted"),
    "no tensor": (lambda s: s.call(), "expected one tensor"),
    "two tensors": (
        lambda s: s.call(s.tensor(s.golden_ids), s.tensor(s.golden_ids)),
        "expected one tensor",
    ),
    "a tensor with another name": (
        lambda s: s.call(s.tensor(s.golden_ids, name="x")),
        "expected one tensor",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_input_is_refused_and_the_next_call_is_answered(served: Served, case: str) -> None:
    send, text = REFUSED[case]
    reply = send(served)
    assert (reply.err_no, list(reply.tensors)) == (BAD_REQUEST, [])
    assert text in reply.err_msg
    served.check_golden()


def test_an_invalid_call_does_not_affect_the_calls_batched_with_it(served: Served) -> None:
    good, bad = served.tensor(served.golden_ids), served.tensor(with_last(served.golden_ids, -1))
    calls = [served.stub.inference.future(Request(tensors=[bad if turn % 4 else good])) for turn in range(80)]
    for turn, call in enumerate(calls):
        assert call.result(timeout=10).err_no == (BAD_REQUEST if turn % 4 else 0)
    served.check_golden()


def test_a_call_for_another_model_is_refused(served: Served) -> None:
    reply = served.call(served.tensor(served.golden_ids), name="another")
    assert (reply.err_no, list(reply.tensors)) == (3002, [])


@pytest.mark.parametrize("service", MODELS.values())
def test_the_server_is_one_process_under_init(stack: Stack, service: str) -> None:
    lines = run("docker", "top", stack.inspect(service)["Id"], "-eo", "pid,args").splitlines()[1:]
    commands = sorted(line.split(maxsplit=1)[1] for line in lines if "health.py" not in line)
    assert commands == ["/sbin/docker-init -- python server.py", "python server.py"]


class TestModelThatCannotBeServed:
    """The container exits with BAD_MODEL and prints the reason, instead of running without a model."""

    @pytest.fixture
    def copy(self, bundle_dir: Path, tmp_path: Path) -> Path:
        copytree(bundle_dir, tmp_path / "bundle")
        (tmp_path / "bundle").chmod(0o755)
        return tmp_path / "bundle"

    @staticmethod
    def reason(bundle: Path) -> str:
        """Start the container, check that it exits with BAD_MODEL, and return the line with the reason."""
        command = ["docker", "run", "--rm", "--init", "--network", "none"]
        command += ["--volume", f"{bundle}:/bundles/current:ro", "--env", "MODEL_DIR=/bundles/current/ranker"]
        done = subprocess.run(
            [*command, "ecrs/serving"], text=True, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == BAD_MODEL, done.stderr
        return next(line for line in done.stderr.splitlines() if "cannot be served: " in line)

    def test_damaged_weights(self, copy: Path) -> None:
        weights = copy / "ranker" / "inference.pdiparams"
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        assert "inference.pdiparams: truncated in the parameter" in self.reason(copy)

    def test_damaged_program(self, copy: Path) -> None:
        program = copy / "ranker" / "inference.pdmodel"
        program.write_bytes(program.read_bytes()[:1000])
        assert "inference.pdmodel: the program is truncated or malformed" in self.reason(copy)

    def test_weights_of_another_training(self, copy: Path) -> None:
        golden = json.loads((copy / "golden.json").read_text())
        golden["ranker"]["outputs"] = (np.array(golden["ranker"]["outputs"]) + 0.001).tolist()
        (copy / "golden.json").write_text(json.dumps(golden))
        assert "golden rows are off by 0.001" in self.reason(copy)

    def test_layout_of_another_model(self, copy: Path) -> None:
        layout = "serving_server_conf.prototxt"
        (copy / "ranker" / layout).write_text((copy / "user_tower" / layout).read_text())
        assert "serving_server_conf.prototxt: does not name" in self.reason(copy)

    def test_no_signature(self, copy: Path) -> None:
        (copy / "ranker" / "signature.json").unlink()
        assert "signature.json" in self.reason(copy)

    def test_no_model(self, copy: Path) -> None:
        copy.rename(copy.with_name("elsewhere"))
        (copy.with_name("bundle")).mkdir(mode=0o755)
        assert "signature.json" in self.reason(copy)


@pytest.mark.parametrize("service", MODELS.values())
def test_sigterm_stops_the_server_within_ten_seconds(stack: Stack, service: str) -> None:
    started = time.monotonic()
    stack.compose("stop", "--timeout", "30", service)
    took_s = time.monotonic() - started
    code = stack.inspect(service)["State"]["ExitCode"]
    stack.compose("start", service)
    wait_until(f"{service} healthy", lambda: stack.is_healthy(service), 60)
    assert (code, took_s < 10) == (0, True)
