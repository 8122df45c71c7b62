"""The fast runtime: an exported model, compiled by OpenVINO; no PyTorch needed.

The network is compiled in two forms. *Alone*: one stream that spreads an image over all threads, for the least
latency. *Busy*: one single-threaded stream a worker, for the most images a second. Which one a call takes, its
caller knows. Each form has a compiled copy of the weights: the price of having both is memory of about the file's size.

Streams are threads of OpenVINO's own. One that has done its image would stand idle until a thread of Python's has the
interpreter's lock and hands it another; a few more calls than streams, which OpenVINO queues, and it has that already.
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
from resnet_service.types import Precision

# Without this hint OpenVINO computes an FP32 model in BF16 wherever the CPU can, and the answers depend on the machine.
# What is quantized stays INT8; the hint is about the rest.
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

# Such that one call waits in OpenVINO's own queue while another is being handed over. What a stream that has to wait
# costs: "What bounds it" in benchmarks/README.md.
_PREFETCH = 2


class OpenVINORuntime:
    """An exported model on the CPU."""

    name = "openvino"

    def __init__(self, exported: ExportedModel, *, workers: int = 1, threads: int = 0) -> None:
        """Compile the network.

        Args:
            exported: The model.
            workers: Networks that are computed at once, each in a stream of its own.
            threads: CPU threads for one call; 0 for ``workers`` threads when a call is alone, one when it is not.

        Raises:
            ModelError: OpenVINO cannot run it, or it does not take or give what its metadata say.

        """
        self.metadata = exported.metadata
        self.sha256 = exported.sha256
        self.precision: Precision = exported.precision
        self.outputs = exported.outputs or Outputs()
        self.logits_only = (
            "An older version exported this model, so it gives scores only; export it again (resnet-service export)."
            if exported.outputs is None
            else ""
        )
        core = openvino.Core()
        try:
            model = core.read_model(exported.data)
            _check(model, exported, self.outputs)
            self.class_weights = _take_class_weights(model) if self.outputs.feature_map else None
            side = exported.metadata.input_size
            model.reshape({INPUT: [1, side, side, 3]})  # fixed shapes are faster, and memory cannot grow with them
            # By default each process binds its threads to CPUs, beginning with the first: two on one machine that are
            # both allowed all of its CPUs, as containers with a quota are, would share one and leave the others idle.
            hints = {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "ENABLE_CPU_PINNING": "NO"}
            forms = [{**hints, "NUM_STREAMS": workers, "INFERENCE_NUM_THREADS": workers * max(threads, 1)}]
            if threads == 0 and workers > 1:
                forms.append({**hints, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": workers})
            # Side by side, since compiling a form takes one CPU.
            with ThreadPoolExecutor(len(forms), thread_name_prefix="compiling") as compilers:
                busy, *others = compilers.map(lambda form: core.compile_model(model, "CPU", form), forms)
        except RuntimeError as error:
            raise UnreadableModel(f"OpenVINO cannot run this model: {str(error).strip().splitlines()[-1]}") from error
        self.prefetch = _PREFETCH
        self._throughput = _Requests(busy, workers + self.prefetch)
        self._latency = _Requests(others[0], 1) if others else self._throughput

    @classmethod
    def open(cls, path: Path, *, workers: int = 1, threads: int = 0) -> Self:
        """Read and compile the exported model ``path``; arguments and errors as for the class and ``read_exported``."""
        return cls(read_exported(path), workers=workers, threads=threads)

    def logits(self, crops: NDArray[np.uint8], *, prefer_latency: bool = True) -> NDArray[np.float32]:
        """Run the network on uint8 [N, S, S, 3], one image after the other; return float32 [N, classes]."""
        requests = self._latency if prefer_latency else self._throughput
        output = np.empty((len(crops), self.metadata.num_classes), np.float32)
        with requests.one() as request:
            for image, row in zip(crops, output, strict=True):
                row[:] = request.run(image)
        return output

    def features(self, pixels: NDArray[np.uint8], *, prefer_latency: bool = True) -> Features:
        """Run the network on uint8 [S, S, 3] and return what comes before its logits too."""
        requests = self._latency if prefer_latency else self._throughput
        with requests.one() as request:
            logits = request.run(pixels).copy()
            feature_map = request.output(FEATURE_MAP) if self.outputs.feature_map else None
            return Features(logits, request.output(EMBEDDING), feature_map)


class _Request:
    """One infer request with its input and output seen as arrays: nothing is allocated or looked up in a call."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._pixels: NDArray[np.uint8] = self._request.get_tensor(INPUT).data[0]
        self._logits: NDArray[np.float32] = self._request.get_tensor(OUTPUT).data[0]

    def run(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run on uint8 [S, S, 3]; what is returned, float32 [classes], is valid until the next call."""
        self._pixels[:] = image
        self._request.infer(share_outputs=True)
        return self._logits

    def output(self, name: str) -> NDArray[np.float32]:
        """Return a copy of what the last run gave besides logits."""
        given: NDArray[np.float32] = self._request.get_tensor(name).data[0]
        return given.copy()


class _Requests:
    """The infer requests of one compiled form; each serves one call at a time."""

    def __init__(self, compiled: openvino.CompiledModel, count: int) -> None:
        self._free: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(_Request(compiled))

    @contextmanager
    def one(self) -> Iterator[_Request]:
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)


def _check(model: openvino.Model, exported: ExportedModel, outputs: Outputs) -> None:
    """Compare what the network takes and gives with what its metadata say."""
    side, classes = exported.metadata.input_size, exported.metadata.num_classes
    taken = {
        port.any_name: (port.element_type.get_type_name(), port.partial_shape.to_string()) for port in model.inputs
    }
    if taken != {INPUT: ("u8", f"[?,{side},{side},3]")}:
        raise InvalidMetadata(f"The exported network takes {taken}, which is not what its metadata say.")
    given = {port.any_name: port.partial_shape for port in model.outputs}
    if OUTPUT not in given or given[OUTPUT].rank.get_length() != 2 or given[OUTPUT][1].get_length() != classes:
        raise ClassCountMismatch(f"The exported network gives {given}, but its metadata have {classes} classes.")
    expected = {OUTPUT: f"[?,{classes}]"}
    if outputs.embedding:
        expected[EMBEDDING] = f"[?,{outputs.embedding}]"
    if outputs.feature_map:
        expected[FEATURE_MAP] = f"[?,{','.join(map(str, outputs.feature_map))}]"
        expected[CLASS_WEIGHTS] = f"[{classes},{outputs.embedding}]"
    types = {port.element_type.get_type_name() for port in model.outputs}
    if {name: shape.to_string() for name, shape in given.items()} != expected or types != {"f32"}:
        raise InvalidMetadata(f"The exported network gives {given}, in {types}, which is not what its metadata say.")


def _take_class_weights(model: openvino.Model) -> NDArray[np.float32]:
    """Return the last layer's weights, and leave them out of what each inference gives.

    Whatever quantization made of them, a byte and a scale or half a float, is computed once, here. OpenVINO's reference
    implementation does it: to compile even this much takes a tenth of a model's opening.

    Raises:
        InvalidMetadata: What the file calls weights depends on the image.
        NonFiniteWeights: NaN or infinity among them, which no image's scores need to show.

    """
    result = model.output(CLASS_WEIGHTS).get_node()
    model.remove_result(result)
    try:
        constant = openvino.Model([result.input_value(0)], [])
    except RuntimeError as error:
        raise InvalidMetadata("The exported network's class weights are not constant.") from error
    for node in constant.get_ordered_ops():
        if node.get_type_name() == "Identity":  # has no reference implementation, and needs none
            replace_output_update_name(node.output(0), node.input_value(0))
    weights = np.empty(constant.output(0).get_shape(), np.float32)
    if not constant.evaluate([openvino.Tensor(weights, shared_memory=True)], []):
        raise UnreadableModel("OpenVINO cannot compute the exported network's class weights.")
    if not np.isfinite(weights).all():
        raise NonFiniteWeights("The exported network's class weights have NaN or infinity.")
    return weights
