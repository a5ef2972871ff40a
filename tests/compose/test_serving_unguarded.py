"""The stock server misbehaves on requests that the guard refuses. These tests document why the guard exists.

Each test starts the serving image with the stock `RequestOp.unpack_request_package` in place of the guard,
and asserts the observed behaviour of paddlepaddle 2.6.2 and Paddle Serving 0.9.0.
"""

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ecrs.contract.pipeline_service_pb2 import Request, Tensor
from ecrs.contract.pipeline_service_pb2_grpc import PipelineServiceStub
from ecrs.serving.signature import ModelSignature
from tests.compose.conftest import run, wait_until
from tests.compose.test_serving import Served, with_last

UNGUARDED = Path(__file__).with_name("unguarded.py")
FAILED = 10000
"""The stock `err_no` of a prediction that raised."""
SEGMENTATION_FAULT = 139
MARKER = "/tmp/unpickled"  # noqa: S108 - in the container
FAR = 2**40
"""An id so large that its row would be terabytes beyond the table."""


class Container:
    """An unguarded server of one model."""

    def __init__(self, served: Served, identity: str) -> None:
        self.served = served
        self.identity = identity

    def state(self) -> dict[str, Any]:
        return json.loads(run("docker", "inspect", self.identity))[0]["State"]

    def exit_code(self) -> int:
        """Wait until the container ends and return its exit code."""
        wait_until("the server's end", lambda: not self.state()["Running"], limit_s=20)
        return self.state()["ExitCode"]

    def has(self, path: str) -> bool:
        return not subprocess.run(
            ["docker", "exec", self.identity, "test", "-e", path], check=False
        ).returncode

    def failed_valid_calls(self, invalid: Request) -> int:
        """Send 30 valid and 10 invalid calls together; return how many valid ones got no correct answer."""
        served, valid = self.served, Request(tensors=[self.served.tensor(self.served.golden_ids)])
        calls = [
            served.stub.inference.future(valid if turn % 4 else invalid, timeout=5) for turn in range(40)
        ]
        return sum(not self._is_correct(call) for turn, call in enumerate(calls) if turn % 4)

    def _is_correct(self, call: Any) -> bool:
        expected = self.served.golden_outputs
        try:
            reply = call.result()
        except grpc.RpcError:
            return False
        if reply.err_no or list(reply.tensors[0].shape) != list(expected.shape):
            return False
        return np.allclose(
            np.reshape(reply.tensors[0].float_data, expected.shape), expected, rtol=0, atol=1e-5
        )


Start = Callable[[str], Container]


@pytest.fixture
def start(bundle_dir: Path) -> Iterator[Start]:
    """Return a function that starts the unguarded server of a model."""
    started: list[str] = []
    channels: list[grpc.Channel] = []

    def start(model: str) -> Container:
        bundle_dir.chmod(0o755)
        mounts = [f"{bundle_dir}:/bundles/current:ro", f"{UNGUARDED}:/srv/unguarded.py:ro"]
        command = ["docker", "run", "--detach", "--init", "--cap-drop", "ALL"]
        command += [f"--volume={mount}" for mount in mounts]
        command += ["--env", f"MODEL_DIR=/bundles/current/{model}", "ecrs/serving", "python", "unguarded.py"]
        started.append(run(*command).strip())
        wait_until("serving", lambda: "serving " in run("docker", "logs", started[-1]), limit_s=60)
        address = run("docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", started[-1]).strip()
        channels.append(grpc.insecure_channel(f"{address}:9998"))
        golden = json.loads((bundle_dir / "golden.json").read_text())[model]
        served = Served(
            ModelSignature.load(bundle_dir / model),
            PipelineServiceStub(channels[-1]),
            np.array(golden["ids"]),
            np.array(golden["outputs"], dtype=np.float32),
        )
        served.check_golden()
        return Container(served, started[-1])

    yield start
    for channel in channels:
        channel.close()
    if started:
        run("docker", "rm", "--force", *started)


class Touch:
    """An object that creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARKER),)


def test_a_pickle_is_executed(start: Start) -> None:
    server = start("ranker")
    array = io.BytesIO()
    np.save(array, np.array([Touch()], dtype=object), allow_pickle=True)
    assert not server.has(MARKER)
    server.served.call(Tensor(name=server.served.signature.feed, elem_type=13, byte_data=array.getvalue()))
    assert server.has(MARKER)


@pytest.mark.parametrize("model", ["user_tower", "ranker"])
def test_a_negative_id_is_answered_as_if_it_were_valid(start: Start, model: str) -> None:
    served = start(model).served
    outputs = served.outputs(with_last(served.golden_ids, -1))
    assert np.isfinite(outputs).all()


def test_an_id_above_the_table_is_answered_as_if_it_were_valid(start: Start) -> None:
    served = start("user_tower").served
    outputs = served.outputs(with_last(served.golden_ids, served.signature.cardinality[-1]))
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_an_id_far_outside_the_table_kills_the_server(start: Start, sign: int) -> None:
    server = start("user_tower")
    with pytest.raises(grpc.RpcError):
        server.served.call(server.served.tensor(with_last(server.served.golden_ids, sign * FAR)))
    assert server.exit_code() == SEGMENTATION_FAULT


@pytest.mark.parametrize("model", ["user_tower", "ranker"])
def test_an_id_far_outside_the_table_breaks_the_calls_batched_with_it(start: Start, model: str) -> None:
    server = start(model)
    ids = with_last(server.served.golden_ids, FAR)
    assert server.failed_valid_calls(Request(tensors=[server.served.tensor(ids)])) > 0


@pytest.mark.parametrize("model", ["user_tower", "ranker"])
def test_a_missing_column_breaks_the_calls_batched_with_it(start: Start, model: str) -> None:
    server = start(model)
    ids = server.served.golden_ids[:, 1:]
    assert server.failed_valid_calls(Request(tensors=[server.served.tensor(ids)])) > 0


@pytest.mark.parametrize("model", ["user_tower", "ranker"])
def test_string_values_break_the_calls_batched_with_them(start: Start, model: str) -> None:
    server = start(model)
    assert server.failed_valid_calls(Request(key=[server.served.signature.feed], value=["[[0]]"])) > 0


@pytest.mark.parametrize("model", ["user_tower", "ranker"])
def test_an_empty_batch_makes_the_model_fail(start: Start, model: str) -> None:
    served = start(model).served
    assert served.call(served.tensor(served.golden_ids[:0])).err_no == FAILED
