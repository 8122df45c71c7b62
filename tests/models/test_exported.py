"""The checks of an exported model before an ONNX parser runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from resnet_service.errors import InvalidMetadata, ModelError, ModelFileNotFound, SuspiciousModel, UnreadableModel
from resnet_service.models.exported import graph_bytes, read_exported
from resnet_service.models.metadata import METADATA_KEY, Agreement, ModelMetadata, Packing
from resnet_service.models.operators import LEAST_INPUTS
from resnet_service.system.files import sha256_of


def small_model() -> onnx.ModelProto:
    """Return a graph of two nodes with a weight and a tensor in an attribute."""
    weight = numpy_helper.from_array(np.ones((3, 3), np.float32), "weight")
    constant = numpy_helper.from_array(np.ones(3, np.float32), "value")
    nodes = [
        helper.make_node("Constant", [], ["bias"], value=constant),
        helper.make_node("Gemm", ["pixels", "weight", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def described(model: onnx.ModelProto) -> bytes:
    """Serialise ``model`` with the metadata of an exported model."""
    packing = Packing(
        checkpoint_sha256="0" * 64,
        graph_sha256=sha256_of(model.graph.SerializeToString()),
        precision="fp32",
        agreement=Agreement(pictures=1, top1_agreement=100, max_logit_difference=0),
    )
    metadata = ModelMetadata(arch="resnet18", num_classes=3, input_size=8, resize_size=8, packing=packing)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_a_valid_file_is_read(path: Path) -> None:
    data = described(small_model())
    path.write_bytes(data)
    exported = read_exported(path)
    assert (exported.data, exported.precision, exported.sha256) == (data, "fp32", sha256_of(data))
    assert graph_bytes(data) == small_model().graph.SerializeToString()


def test_weights_that_are_said_to_be_here_are_here(path: Path) -> None:
    """`onnx.save(onnx.load(…), …)` leaves this field in a file whose weights were in another one."""
    model = small_model()
    model.graph.initializer[0].data_location = TensorProto.DEFAULT
    path.write_bytes(described(model))
    assert read_exported(path).precision == "fp32"


def test_metadata_of_many_levels_are_refused(path: Path) -> None:
    model = small_model()
    helper.set_model_props(model, {METADATA_KEY: "[" * 100_000})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidMetadata, match="not JSON"):
        read_exported(path)


def external_weight(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")


def external_attribute(model: onnx.ModelProto) -> None:
    constant = model.graph.node[0].attribute[0].t
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="/dev/zero")


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["m", "c"], ["out"], body=body))


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Gelu", ["logits"], ["out"], domain="com.example"))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("com.example", "F", ["x"], ["y"], [], []))


def sparse_weight(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "values")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


def loop_of_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])])


def node_that_feeds_itself(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "logits"


def lacking_input(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[1] = ""


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("NonZero", ["logits"], ["positions"]))


def value_made_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["pixels"], ["logits"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (loop_of_nodes, "has a loop"),
        (node_that_feeds_itself, "has a loop"),
        (lacking_input, "operator Gemm that lacks an input"),
        (unknown_operator, "the operator 'NonZero', which no image classifier needs"),
        (value_made_twice, "makes a value twice"),
        (external_weight, "another file"),
        (external_attribute, "another file"),
        (loop, "graphs within graphs"),
        (foreign_operator, "outside the ONNX standard"),
        (function, "functions"),
        (sparse_weight, "sparse"),
    ],
)
def test_elements_that_export_never_writes_are_refused(
    path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = small_model()
    change(model)
    path.write_bytes(described(model))
    with pytest.raises(SuspiciousModel, match=message):
        read_exported(path)


def test_the_table_of_operators_is_that_of_onnx() -> None:
    """Its least inputs are those of the operator sets that files may have: 7 and later."""
    versions: dict[str, dict[int, int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and not schema.deprecated:
            versions.setdefault(schema.name, {})[schema.since_version] = schema.min_input
    for name, least in LEAST_INPUTS.items():
        known = versions.get(name.decode())
        if known is None:
            continue  # newer than the installed ONNX
        oldest = max((version for version in known if version <= 7), default=min(known))
        assert least == min(count for version, count in known.items() if version >= oldest), name
    assert len(LEAST_INPUTS) > 150


def test_too_many_nodes_are_refused(path: Path) -> None:
    model = small_model()
    model.graph.node.extend(helper.make_node("Relu", ["logits"], [f"out{number}"]) for number in range(20_001))
    path.write_bytes(described(model))
    with pytest.raises(SuspiciousModel, match="nodes"):
        read_exported(path)


def test_a_changed_weight_is_noticed(path: Path) -> None:
    data = bytearray(described(small_model()))
    data[data.index(np.ones((3, 3), np.float32).tobytes()) + 2] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(UnreadableModel, match="damaged or altered"):
        read_exported(path)


def test_an_onnx_file_of_another_program_is_refused(path: Path) -> None:
    path.write_bytes(small_model().SerializeToString())
    with pytest.raises(InvalidMetadata, match="not written by `resnet-service export`"):
        read_exported(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"arch": 3}', "{}"])
def test_malformed_metadata_are_refused(path: Path, text: str) -> None:
    model = small_model()
    helper.set_model_props(model, {METADATA_KEY: text})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidMetadata):
        read_exported(path)


def test_a_second_set_of_operators_is_refused_in_its_own_words(exported: Path, path: Path) -> None:
    """The digest is that of the graph, and the sets of operators stand beside it."""
    model = onnx.load(exported)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidMetadata, match=r"2 sets of operators.* altered after the export"):
        read_exported(path)


def test_metadata_of_a_checkpoint_do_not_make_an_exported_model(path: Path) -> None:
    model = small_model()
    metadata = ModelMetadata(arch="resnet18", num_classes=3, input_size=8, resize_size=8)
    helper.set_model_props(model, {METADATA_KEY: metadata.model_dump_json()})
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidMetadata, match="how it was exported"):
        read_exported(path)


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04" + bytes(100), bytes(100), b"\xff" * 100])
def test_other_files_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(UnreadableModel, match="not a complete ONNX file"):
        read_exported(path)


def test_a_missing_file_has_its_own_error(path: Path) -> None:
    with pytest.raises(ModelFileNotFound):
        read_exported(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(path: Path, share: float) -> None:
    data = described(small_model())
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises((UnreadableModel, InvalidMetadata)):
        read_exported(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_model_error_or_harmless(path: Path, data: st.DataObject) -> None:
    whole = bytearray(described(small_model()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        exported = read_exported(path)
    except ModelError:
        return
    # The damage is outside the graph: in the producer's name, or in a metadata value that is still valid.
    assert graph_bytes(exported.data) == small_model().graph.SerializeToString()
