"""Which operations of an OpenVINO graph depend on weights alone: compiling the graph computes them, once."""

from collections.abc import Iterator

import openvino


def operations(model: openvino.Model) -> Iterator[tuple[openvino.Node, bool]]:
    """Yield each operation in order, but no stored weights, and whether it depends on weights alone."""
    constants: set[str] = set()
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        sources = {value.get_node().get_name() for value in operation.input_values()}
        constant = kind == "Constant" or (kind != "Result" and bool(sources) and sources <= constants)
        if constant:
            constants.add(operation.get_name())
        if kind != "Constant":
            yield operation, constant
