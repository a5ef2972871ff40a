"""Models whose files could do harm are refused before Paddle loads them."""

import ast
import re
import shutil
import subprocess
import sys
import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from paddle.base.proto import framework_pb2

from ecrs.bundle import MODELS, Bundle, BundleError
from ecrs.serving.inprocess import InProcessModel
from ecrs.serving.model_check import OPERATORS, InvalidModel, check_model
from ecrs.serving.program import Program
from ecrs.serving.signature import ModelSignature
from ecrs_models.export.model_files import save_model
from ecrs_models.training.networks import new_networks
from ecrs_models.training.settings import TrainingSettings
from tests.tiny import resealed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle that a test may change."""
    return Path(shutil.copytree(tiny.path, tmp_path / tiny.version))


Change = Callable[[Any], object]


def changed(model_dir: Path, change: Change) -> None:
    """Apply a change to the description of a model's program."""
    path = model_dir / "inference.pdmodel"
    description = framework_pb2.ProgramDesc.FromString(path.read_bytes())
    change(description)
    path.write_bytes(description.SerializeToString())


def operator(description: Any, kind: str) -> Any:
    return next(operator for operator in description.blocks[0].ops if operator.type == kind)


def add_save_combine(description: Any, target: str = "/tmp/written") -> None:  # noqa: S108
    added = description.blocks[0].ops.add(type="save_combine")
    added.inputs.add(parameter="X", arguments=["embedding_0.w_0"])
    added.attrs.add(name="file_path", type=framework_pb2.STRING, s=target)


def test_operator_that_writes_a_file_is_refused_and_not_executed(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "written"
    changed(copy / "ranker", lambda description: add_save_combine(description, str(target)))
    bundle = resealed(copy)
    with pytest.raises(BundleError, match="the operator 'save_combine' is not allowed"):
        InProcessModel(bundle.path / "ranker")
    assert not target.exists()


def add_text(description: Any) -> None:
    operator(description, "relu").attrs.add(name="path", type=framework_pb2.STRING, s="/etc/passwd")


def add_block_attribute(description: Any) -> None:
    operator(description, "relu").attrs.add(name="sub_block", type=framework_pb2.BLOCK, block_idx=0)


def write_parameter(description: Any) -> None:
    operator(description, "reshape2").outputs[0].arguments[:] = ["embedding_0.w_0"]


def fetch_into_parameter(description: Any) -> None:
    operator(description, "fetch").outputs[0].arguments[:] = ["embedding_0.w_0"]


def fill_memory(description: Any) -> None:
    added = description.blocks[0].ops.add(type="fill_constant")
    added.attrs.add(name="shape", type=framework_pb2.LONGS, longs=[1 << 40])


def write_twice(description: Any) -> None:
    description.blocks[0].ops.add().CopyFrom(operator(description, "relu"))


def look_up_other_ids(description: Any) -> None:
    lookup = operator(description, "lookup_table_v2")
    next(names for names in lookup.inputs if names.parameter == "Ids").arguments[:] = ["linear_0.tmp_0"]


def other_input(description: Any) -> None:
    ids = next(variable for variable in description.blocks[0].vars if variable.name == "ids")
    description.blocks[0].vars.add().CopyFrom(ids)
    description.blocks[0].vars[-1].name = "other"
    operator(description, "feed").outputs[0].arguments[:] = ["other"]


def other_output(description: Any) -> None:
    operator(description, "fetch").inputs[0].arguments[:] = ["relu_0.tmp_0"]


def shorter_table(description: Any) -> None:
    table = next(variable for variable in description.blocks[0].vars if variable.name == "embedding_0.w_0")
    table.type.lod_tensor.tensor.dims[0] -= 1


PROGRAMS: dict[str, tuple[Change, str]] = {
    "an operator that writes a file": (add_save_combine, "the operator 'save_combine' is not allowed"),
    "a path": (add_text, "relu: the attribute 'path' has a text"),
    "a reference to a block": (add_block_attribute, "field 12 of wire type 0 is not allowed"),
    "two blocks": (lambda description: description.blocks.add(idx=1, parent_idx=0), "2 blocks, expected 1"),
    "no block": (lambda description: description.ClearField("blocks"), "0 blocks, expected 1"),
    "a written parameter": (write_parameter, "must not write 'embedding_0.w_0'"),
    "an output in a parameter": (fetch_into_parameter, "fetch must not write 'embedding_0.w_0'"),
    "a huge constant": (fill_memory, "could fill the memory"),
    "a variable written twice": (write_twice, "must not write 'relu_0.tmp_0'"),
    "ids from elsewhere": (look_up_other_ids, "are not computed from 'ids' alone"),
    "another input": (other_input, "'ids' is not its only input"),
    "another output": (other_output, "'relu_0.tmp_0' does not have the type and the 1 columns"),
    "another table": (shorter_table, "'embedding_0.w_0' is not of the type and shape"),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_program_that_no_model_has_is_refused(copy: Path, case: str) -> None:
    change, reason = PROGRAMS[case]
    changed(copy / "ranker", change)
    with pytest.raises(BundleError, match=reason):
        InProcessModel(copy / "ranker")


def test_ids_outside_an_embedding_table_are_refused(copy: Path) -> None:
    """Paddle would read foreign memory, or crash."""
    signature = ModelSignature.load(copy / "ranker")
    for column in range(len(signature.columns)):
        larger = list(signature.cardinality)
        larger[column] += 100_000
        ModelSignature(**{**vars(signature), "cardinality": tuple(larger)}).save(copy / "ranker")
        with pytest.raises(BundleError, match=r"ids from 0 to \d+ for a table of \d+ rows"):
            InProcessModel(copy / "ranker")


def test_every_change_of_size_of_the_parameters_is_refused(copy: Path) -> None:
    path = copy / "item_tower" / "inference.pdiparams"
    content = path.read_bytes()
    cuts = (b"", content[:10], content[:30], content[: len(content) // 2], content[:-1])
    for other in (*cuts, content + b"x"):
        path.write_bytes(other)
        with pytest.raises(BundleError, match=r"item_tower/inference\.pdiparams: "):
            InProcessModel(copy / "item_tower")


def test_second_program_that_paddle_serving_would_prefer_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / "ranker" / "inference.pdmodel", copy / "ranker" / "__model__")
    with pytest.raises(BundleError, match="its files are not exactly"):
        InProcessModel(copy / "ranker")


@pytest.mark.parametrize("ranker", ["deepfm", "dcn"])
def test_programs_are_read_as_paddle_reads_them(tiny: Bundle, tmp_path: Path, ranker: str) -> None:
    signature = ModelSignature.load(tiny.path / "ranker")
    _, network = new_networks(tiny.encoder, TrainingSettings(until=1, window_s=1, ranker=ranker))
    save_model(network, signature, tmp_path / "ranker")
    check_model(tmp_path / "ranker", signature)
    used = set()
    for directory in (*(tiny.path / name for name in MODELS), tmp_path / "ranker"):
        content = (directory / "inference.pdmodel").read_bytes()
        (block,) = framework_pb2.ProgramDesc.FromString(content).blocks
        program = Program.parse(content)
        assert [operator.type for operator in program.operators] == [operator.type for operator in block.ops]
        for ours, theirs in zip(program.operators, block.ops, strict=True):
            assert ours.inputs == {
                names.parameter: list(names.arguments) for names in theirs.inputs if names.arguments
            }
            assert ours.attributes.keys() == {attribute.name for attribute in theirs.attrs}
        for variable in block.vars:
            if variable.type.HasField("lod_tensor"):
                tensor = variable.type.lod_tensor.tensor
                ours = program.variables[variable.name]
                assert (ours.dtype, ours.shape) == (tensor.data_type, tuple(tensor.dims))
                assert ours.is_parameter == variable.persistable
        used |= {operator.type for operator in block.ops}
    assert used <= OPERATORS


def test_no_path_of_this_machine_is_in_a_program(tiny: Bundle) -> None:
    for name in MODELS:
        assert b".py" not in (tiny.path / name / "inference.pdmodel").read_bytes()


def test_check_names_a_truncated_program(copy: Path) -> None:
    path = copy / "ranker" / "inference.pdmodel"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InvalidModel, match=r"inference\.pdmodel: the program is truncated or malformed"):
        check_model(copy / "ranker", ModelSignature.load(copy / "ranker"))


def test_check_needs_only_what_the_serving_image_has(tiny: Bundle, tmp_path: Path) -> None:
    """The image has Python 3.9, and only the files that its Dockerfile copies."""
    dockerfile = (ROOT / "images" / "serving" / "Dockerfile").read_text()
    copied = re.findall(r"services/(ecrs/serving/\w+\.py)", dockerfile)
    assert "ecrs/serving/model_check.py" in copied
    (tmp_path / "ecrs" / "serving").mkdir(parents=True)
    for name in copied:
        source = (ROOT / "services" / name).read_text()
        ast.parse(source, feature_version=(3, 9))
        (tmp_path / name).write_text(source)
    script = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); sys.modules['paddle'] = None\n"
        "from ecrs.serving.model_check import check_model\n"
        "from ecrs.serving.signature import ModelSignature\n"
        "assert list(__import__('ecrs').__path__) == [sys.argv[1] + '/ecrs']\n"
        "model = pathlib.Path(sys.argv[2])\n"
        "print(check_model(model, ModelSignature.load(model)))"
    )
    # -S: without site-packages, where the whole project is installed; numpy is found by its path.
    environment = {"PYTHONPATH": str(Path(numpy.__file__).parents[1])}
    arguments = [sys.executable, "-S", "-c", script, tmp_path, tiny.path / "ranker"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "save_infer_model/scale_0.tmp_0\n"
