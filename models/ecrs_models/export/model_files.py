"""Writes a model of a bundle in the directory layout of Paddle Serving."""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from pathlib import Path
from typing import Any

import paddle
from paddle.base.proto import framework_pb2
from paddle.utils import unique_name

from ecrs.serving.program import Program
from ecrs.serving.signature import ModelSignature
from ecrs_models.export.serving_form import multiply_by_onednn, serving_form


def save_model(network: Any, signature: ModelSignature, directory: Path) -> None:
    """Write a trained network, in its served form, to a new directory.

    The files are `inference.pdmodel`, `inference.pdiparams`, the `.prototxt` of Paddle Serving's server and
    client, and `signature.json`.
    """
    directory.mkdir()
    spec = paddle.static.InputSpec([None, len(signature.columns)], "int64", name=signature.feed)
    network = serving_form(network)
    network.eval()
    with unique_name.guard():  # so that the output's name does not depend on earlier exports in this process
        paddle.jit.save(network, str(directory / "inference"), input_spec=[spec])
    (directory / "inference.pdiparams.info").unlink(missing_ok=True)
    program = directory / "inference.pdmodel"
    forget_source(program)
    if signature.model == "ranker":  # the user tower, called with one row, is faster without oneDNN
        multiply_by_onednn(program)
    signature.save(directory)
    for name in ("serving_server_conf.prototxt", "serving_client_conf.prototxt"):
        (directory / name).write_text(signature.layout(output_name(program)), encoding="utf-8")


def forget_source(program: Path) -> None:
    """Remove the paths of source files that Paddle keeps with each operator of a saved program."""
    description = framework_pb2.ProgramDesc.FromString(program.read_bytes())
    for operation in (operation for block in description.blocks for operation in block.ops):
        kept = [attribute for attribute in operation.attrs if attribute.name != "op_callstack"]
        del operation.attrs[:]
        operation.attrs.extend(kept)
    program.write_bytes(description.SerializeToString())


def output_name(program: Path) -> str:
    """Return the name of the output variable of a saved program."""
    (fetch,) = [op for op in Program.parse(program.read_bytes()).operators if op.type == "fetch"]
    return fetch.inputs["X"][0]
