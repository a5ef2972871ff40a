"""Writes a model of a bundle in the directory layout of Paddle Serving."""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from pathlib import Path
from typing import Any

import paddle
from paddle import inference
from paddle.utils import unique_name

from ecrs.serving.signature import ModelSignature
from ecrs_models.export.serving_form import multiply_by_onednn, serving_form

_INT64, _FLOAT32 = 0, 1


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
    if signature.model == "ranker":  # the user tower, called with one row, is faster without oneDNN
        multiply_by_onednn(directory / "inference.pdmodel")
    signature.save(directory)
    program = inference.Config(str(directory / "inference.pdmodel"), str(directory / "inference.pdiparams"))
    program.disable_glog_info()
    text = serving_conf(signature, inference.create_predictor(program).get_output_names()[0])
    for name in ("serving_server_conf.prototxt", "serving_client_conf.prototxt"):
        (directory / name).write_text(text, encoding="utf-8")


def serving_conf(signature: ModelSignature, output_name: str) -> str:
    """Return Paddle Serving's GeneralModelConfig in text format. Server and client read the same content."""
    return (
        f'feed_var {{\n  name: "{signature.feed}"\n  alias_name: "{signature.feed}"\n'
        f"  is_lod_tensor: false\n  feed_type: {_INT64}\n  shape: {len(signature.columns)}\n}}\n"
        f'fetch_var {{\n  name: "{output_name}"\n  alias_name: "{signature.fetch}"\n'
        f"  is_lod_tensor: false\n  fetch_type: {_FLOAT32}\n  shape: {signature.width}\n}}\n"
    )
