"""The OpenVINO runtime: runs exported models, and checkpoints whose graph is built at the start, without PyTorch.

The network is compiled twice. For *latency*: one stream that spreads an image over all threads. For *throughput*: one
single-threaded stream a worker. The caller chooses one for each call. Each compiled network has its own copy of the
weights, so that the second costs memory of about the file's size.

Streams are OpenVINO's own threads. A stream that has finished would idle until a Python thread holds the interpreter
lock and passes it the next image. So there are a few more calls than streams, which OpenVINO queues.
"""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.utils import replace_output_update_name

from resnet_service.errors import ClassCountMismatch, InvalidMetadata, NonFiniteWeights, UnreadableModel
from resnet_service.models.checkpoint.weights import read_weights
from resnet_service.models.exported import (
    CLASS_WEIGHTS,
    EMBEDDING,
    FEATURE_MAP,
    INPUT,
    OUTPUT,
    ExportedModel,
    read_exported,
)
from resnet_service.models.metadata import Outputs
from resnet_service.runtimes.base import Features
from resnet_service.runtimes.graph_memory import check_memory
from resnet_service.runtimes.graph_work import check_reference_work, check_work
from resnet_service.types import EXPORTED_SUFFIX, Precision

# Without this hint OpenVINO runs an FP32 model in BF16 on CPUs that support it, and answers depend on the machine.
# Quantized layers stay INT8; the hint applies to the others.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

# One call waits in OpenVINO's queue while another is being passed to it. The cost of an idle stream is in
# benchmarks/README.md, "What limits the results".
_PREFETCH = 2


class OpenVINORuntime:
    """A network on the CPU. Thread-safe."""

    name = "openvino"

    def __init__(self, exported: ExportedModel, *, workers: int = 1, threads: int = 0) -> None:
        """Compile the network.

        Args:
            exported: The model.
            workers: Inferences to run at once, each in a stream of its own.
            threads: CPU threads of one call; 0 for ``workers`` threads if the call prefers latency, else one.

        Raises:
            ModelError: OpenVINO cannot run it, or its inputs or outputs contradict its metadata.

        """
        self.metadata = exported.metadata
        self.sha256 = exported.sha256
        self.precision: Precision = exported.precision
        self.outputs = exported.outputs or Outputs()
        self.logits_only = (
            "This model was exported by an older version and gives scores only; export it again: resnet-service export."
            if exported.outputs is None
            else ""
        )
        core = openvino.Core()
        try:
            model = core.read_model(exported.data)
            _check_input(model, exported)
            side = exported.metadata.input_size
            model.reshape({INPUT: [1, side, side, 3]})  # fixed shapes are faster, and keep memory constant
            check_memory(model, len(exported.data))
            check_work(model, len(exported.data))
            _check_outputs(model, exported, self.outputs)
            self.class_weights = _take_class_weights(model) if self.outputs.feature_map else None
            # With CPU pinning, the default, each process binds its threads to CPUs from the first one on. Two processes
            # that may both use all CPUs, such as containers with a quota, would share a CPU and leave others idle.
            hints = {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "ENABLE_CPU_PINNING": "NO"}
            options = [{**hints, "NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers * max(threads, 1)}]
            if threads == 0 and workers > 1:
                options.append({**hints, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": workers})
            # In parallel, since a compilation uses one CPU.
            with ThreadPoolExecutor(len(options), thread_name_prefix="compiling") as compilers:
                throughput, *latency = compilers.map(lambda chosen: core.compile_model(model, "CPU", chosen), options)
        except RuntimeError as error:
            raise _refused(error) from error
        self.prefetch = _PREFETCH
        self._throughput = _Requests(throughput, workers + self.prefetch)
        self._latency = _Requests(latency[0], 1) if latency else self._throughput

    @classmethod
    def open(cls, path: Path, *, arch: str | None = None, workers: int = 1, threads: int = 0) -> Self:
        """Read and compile an exported model, or a checkpoint of an architecture in ``networks``.

        Args:
            path: The file.
            arch: Architecture of a bare ``state_dict``.
            workers: As for the class.
            threads: As for the class.

        Raises:
            ModelError: As for the class, ``read_exported`` and ``read_weights``.

        """
        if path.suffix == EXPORTED_SUFFIX:
            return cls(read_exported(path), workers=workers, threads=threads)
        # Imported here: an exported model is served without the package onnx.
        from resnet_service.models.graphs import build_exported

        return cls(build_exported(read_weights(path, arch=arch), str(path)), workers=workers, threads=threads)

    def logits(self, crops: NDArray[np.uint8], *, prefer_latency: bool = True) -> NDArray[np.float32]:
        """Run the network on uint8 [N, S, S, 3], one image after the other; return float32 [N, classes]."""
        requests = self._latency if prefer_latency else self._throughput
        output = np.empty((len(crops), self.metadata.num_classes), np.float32)
        with requests.acquire() as request:
            for image, row in zip(crops, output, strict=True):
                row[:] = request.run(image)
        return output

    def features(self, pixels: NDArray[np.uint8], *, prefer_latency: bool = True) -> Features:
        """Run the network on uint8 [S, S, 3]; return logits, embedding and feature map."""
        requests = self._latency if prefer_latency else self._throughput
        with requests.acquire() as request:
            logits = request.run(pixels).copy()
            feature_map = request.output(FEATURE_MAP) if self.outputs.feature_map else None
            return Features(logits, request.output(EMBEDDING), feature_map)


def output_shapes(graph: bytes, side: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an ONNX graph's outputs for one image, uint8 [1, ``side``, ``side``, 3], without running it.

    Raises:
        UnreadableModel: OpenVINO cannot run the graph.
        SuspiciousModel: It needs more memory or work than any classifier, here or in ONNX's reference implementation;
            or the image decides the size of its tensors.

    """
    try:
        model = openvino.Core().read_model(graph)
        model.reshape({INPUT: [1, side, side, 3]})
    except RuntimeError as error:
        raise _refused(error) from error
    check_memory(model, len(graph))
    check_work(model, len(graph))
    check_reference_work(model)
    return {name: tuple(port.partial_shape.to_shape()) for port in model.outputs for name in port.get_names()}


def _refused(error: RuntimeError) -> UnreadableModel:
    return UnreadableModel(f"OpenVINO cannot run this model: {str(error).strip().splitlines()[-1]}")


class _Request:
    """An infer request whose input and output are mapped as arrays, so that a call allocates and looks up nothing."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._pixels: NDArray[np.uint8] = self._request.get_tensor(INPUT).data[0]
        self._logits: NDArray[np.float32] = self._request.get_tensor(OUTPUT).data[0]

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run on uint8 [S, S, 3]; the returned float32 [classes] is valid until the next call."""
        self._pixels[:] = image
        self._request.infer(share_outputs=True)
        return self._logits

    def output(self, name: str) -> NDArray[np.float32]:
        """Return a copy of another output of the last run."""
        value: NDArray[np.float32] = self._request.get_tensor(name).data[0]
        return value.copy()


class _Requests:
    """The infer requests of one compiled network; each serves one call at a time."""

    def __init__(self, compiled: openvino.CompiledModel, count: int) -> None:
        self._free: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(_Request(compiled))

    @contextmanager
    def acquire(self) -> Iterator[_Request]:
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)


def _check_input(model: openvino.Model, exported: ExportedModel) -> None:
    """Compare the network's input with its metadata. Imported networks may take one image only."""
    side = exported.metadata.input_size
    inputs = {
        port.any_name: (port.element_type.get_type_name(), port.partial_shape.to_string()) for port in model.inputs
    }
    if inputs not in ({INPUT: ("u8", f"[{count},{side},{side},3]")} for count in ("?", "1")):
        raise InvalidMetadata(
            f"The exported network has the inputs {inputs}, which contradict its metadata; export it again."
        )


def _check_outputs(model: openvino.Model, exported: ExportedModel, outputs: Outputs) -> None:
    """Compare the outputs of a network for one image with its metadata."""
    classes = exported.metadata.num_classes
    shapes = {port.any_name: port.partial_shape for port in model.outputs}
    if OUTPUT not in shapes or shapes[OUTPUT].rank.get_length() != 2 or shapes[OUTPUT][1].get_length() != classes:
        raise ClassCountMismatch(
            f"The exported network has the outputs {shapes}, but its metadata {classes} classes; export it again."
        )
    expected = {OUTPUT: f"[1,{classes}]"}
    if outputs.embedding:
        expected[EMBEDDING] = f"[1,{outputs.embedding}]"
    if outputs.feature_map:
        expected[FEATURE_MAP] = f"[1,{','.join(map(str, outputs.feature_map))}]"
        expected[CLASS_WEIGHTS] = f"[{classes},{outputs.embedding}]"
    types = {port.element_type.get_type_name() for port in model.outputs}
    if {name: shape.to_string() for name, shape in shapes.items()} != expected or types != {"f32"}:
        raise InvalidMetadata(
            f"The exported network has the outputs {shapes} of types {types}, which contradict its metadata; export it "
            "again."
        )


def _take_class_weights(model: openvino.Model) -> NDArray[np.float32]:
    """Return the last layer's weights, and remove them from the model's outputs.

    They are dequantized once, here, by OpenVINO's reference implementation: compiling even this small graph would take
    a tenth of a model's loading time.

    Raises:
        InvalidMetadata: The output that should be the weights depends on the image.
        UnreadableModel: OpenVINO cannot compute them.
        NonFiniteWeights: NaN or infinity among them; the scores of an image need not show that.

    """
    result = model.output(CLASS_WEIGHTS).get_node()
    model.remove_result(result)
    try:
        constant = openvino.Model([result.input_value(0)], [])
    except RuntimeError as error:
        raise InvalidMetadata("The exported network's class weights are not constant; export it again.") from error
    for node in constant.get_ordered_ops():
        if node.get_type_name() == "Identity":  # has no reference implementation; skip it
            replace_output_update_name(node.output(0), node.input_value(0))
    weights = np.empty(constant.output(0).get_shape(), np.float32)
    if not constant.evaluate([openvino.Tensor(weights, shared_memory=True)], []):
        raise UnreadableModel("OpenVINO cannot compute the exported network's class weights.")
    if not np.isfinite(weights).all():
        raise NonFiniteWeights("The exported network's class weights have NaN or infinity.")
    return weights
