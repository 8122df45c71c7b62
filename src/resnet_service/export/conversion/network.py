"""The network in a file to convert: the file read as data or, if its owner trusts it, by running its code."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resnet_service.errors import (
    ClassCountMismatch,
    ModelError,
    NonFiniteWeights,
    PickledCode,
    RuntimeUnavailable,
    StateDictMismatch,
    UnknownArchitecture,
    UnreadableModel,
    install_hint,
)
from resnet_service.export.conversion.matching import Match, NoNetwork, guess, match_architecture
from resnet_service.export.conversion.modules import check_modules
from resnet_service.export.conversion.options import ConvertOptions
from resnet_service.models.architecture_names import resolve, resolve_given, without_pytorch
from resnet_service.models.checkpoint.arrays import Array, Shaped
from resnet_service.models.checkpoint.keys import COUNTER, check_finite, first_of
from resnet_service.models.checkpoint.pickles import PickleError
from resnet_service.models.checkpoint.torch_files import StoredTensor, read_torch_file
from resnet_service.models.checkpoint.training import Tensors, options_of, tensors_of
from resnet_service.models.checkpoint.weights import is_safetensors_file, safetensors_contents
from resnet_service.models.file_kinds import check_checkpoint_kind
from resnet_service.models.layouts import RARE_TWINS
from resnet_service.system.files import read_model_file
from resnet_service.types import WeightsDtype

_UNPICKLE_SECONDS = 300
_MAX_NAMES = 3
_MAX_NAME = 100  # characters
# Under these keys, training scripts keep the name of the architecture.
_ARCH_KEYS = (
    "arch",
    "model_name",
    "architecture",
    "model_arch",
    "model",
    "backbone",
    "encoder",
    "net",
    "network",
    "name",
)
# The others of them may be names of other things.
_ALWAYS_ARCH_KEYS = ("arch", "model_name", "architecture", "model_arch")
# Globals of tensors and of containers of plain values.
_PLAIN_GLOBALS = (
    "torch.",
    "collections.",
    "numpy.",
    "_codecs.",
    "builtins.set",
    "builtins.frozenset",
    "__builtin__.set",
)


class FoundNetwork(NamedTuple):
    """A network in a file, and the facts beside it."""

    content: Any
    tensors: Tensors
    match: Match

    @property
    def is_checkpoint(self) -> bool:
        """Whether the file is a checkpoint that this package wrote."""
        return _is_checkpoint(self.content)

    @property
    def facts(self) -> Mapping[Any, Any]:
        """What the file itself states beside the weights, not the options of its training script."""
        return next(options_of(self.content))

    def normalisation(self, where: str) -> dict[str, tuple[float, ...]]:
        """Return ``mean`` and ``std`` if the network has them as buffers; errors as for ``state_of``."""
        return {
            name: tuple(float(one) for one in _array(self.tensors.found[path], f"{where}: {path}").ravel())
            for name, path in self.match.normalisation.items()
        }


class _Contents(NamedTuple):
    """A file read as data: its content, the tensors in it, and the classes and functions that it names."""

    content: Any
    tensors: Tensors
    names: tuple[str, ...]


def find_network(source: Path, options: ConvertOptions, on_message: Callable[[str], None]) -> FoundNetwork:
    """Find the network in ``source``.

    With ``trust_pickle``, the file's code runs if it is an archive of code, if what it names is more than data, or if
    no network is among its tensors. It does not run if the options contradict the file, or the file exceeds a limit.

    Raises:
        ModelError: The file cannot be read, or has no network that can be served; the message says what to do.

    """
    contents = _read(source, options)
    if contents is not None:
        try:
            found = _find_in(contents, str(source), options, on_message)
            check_modules(found.content, found.match, str(source))
            return found
        except (NoNetwork, StateDictMismatch) as error:
            none = isinstance(error, NoNetwork) or isinstance(error.__cause__, NoNetwork)
            if not none or not options.trust_pickle or not _code_in(contents.names):
                raise
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.pth"
        _unpickle(source, plain)
        contents = _read_as_data(plain, source)
    if not contents.tensors.found:
        raise _without_weights(contents, str(source))
    return _find_in(contents, str(source), options, on_message)


def state_of(found: FoundNetwork, where: str, dtype: WeightsDtype) -> dict[str, Array]:
    """Return the architecture's tensors in its order, with zeros for a bias that the file does not have.

    Raises:
        ModelError: A tensor cannot be read, or has NaN, infinity, or numbers beyond ``dtype``.

    """
    state: dict[str, Array] = {}
    for key in found.match.layout.shapes:
        path = found.match.paths.get(key)
        if path is not None:
            state[key] = _array(found.tensors.found[path], f"{where}: {path}")
        elif key in found.match.layout.classifier:
            state[key] = np.zeros(found.match.rows, np.float32)
    numbers = [key for key, array in state.items() if array.dtype.kind != "f" and not key.endswith(COUNTER)]
    if numbers:
        raise StateDictMismatch(
            f"{where} has weights of the type {state[numbers[0]].dtype} in {first_of(numbers)}, which are not the "
            "network's numbers. Convert the network as it was before quantization."
        )
    check_finite(state, where)
    largest = float(np.finfo(dtype).max)
    beyond = [key for key, array in state.items() if array.dtype == np.float32 and np.abs(array).max() > largest]
    if beyond:
        raise NonFiniteWeights(f"{where} has weights beyond {dtype} in {first_of(beyond)}. Leave out --dtype {dtype}.")
    return state


def _array(tensor: Shaped, name: str) -> Array:
    return tensor.array(name) if isinstance(tensor, StoredTensor) else np.asarray(tensor)


def as_two_classes(
    state: Mapping[str, Array], match: Match, wanted: bool, source: Path, target: Path
) -> dict[str, Array]:
    """Return the weights of a network of one output as one of two, whose softmax is (1 - sigmoid, sigmoid).

    Raises:
        ClassCountMismatch: Not ``wanted``; or not one linear output.

    """
    if match.rows != 1:
        raise ClassCountMismatch(f"--binary is for a network of one output; {source} has {match.rows}. Leave it out.")
    if not wanted:
        raise ClassCountMismatch(
            f"{source} has one output, as for a sigmoid, and softmax of one number is always 1. Write it as two "
            "classes with equal answers, the negative one first: "
            f"resnet-service convert --binary {source} {target} --arch {match.arch}"
        )
    if any(state[key].ndim > 2 for key in match.layout.classifier):
        raise ClassCountMismatch(f"{source} has one output that is not linear, so that --binary cannot make two of it.")
    return {
        key: np.concatenate([np.zeros_like(array), array]) if key in match.layout.classifier else array
        for key, array in state.items()
    }


def check_count(
    given: int | None, found: FoundNetwork, rows: int, source: Path, on_message: Callable[[str], None]
) -> None:
    """Compare the rows of the last layer with the number of classes of the option, and with the file's own.

    Raises:
        ClassCountMismatch: The option, or the metadata of a checkpoint, says another number.

    """
    if given is not None and given != rows:
        raise ClassCountMismatch(
            f"--num-classes is {given}, but the last layer of {source} has {rows} rows. Leave the option out, or "
            "convert the file of the network with as many classes."
        )
    own = found.facts.get("num_classes")
    if given is None and isinstance(own, int) and own != found.match.rows:
        if found.is_checkpoint:
            raise ClassCountMismatch(
                f"{source} says that there are {own} classes, but its last layer has {rows} rows. If these are right: "
                f"--num-classes {rows}"
            )
        on_message(f"The file says {own} classes; its last layer has {rows} rows, which count")


def _read(source: Path, options: ConvertOptions) -> _Contents | None:
    """Read a file as data; ``None`` if that is not possible because of the code in it, which is trusted."""
    try:
        check_checkpoint_kind(source)
        contents = _read_as_data(source, source)
        if not contents.tensors.found:
            raise _without_weights(contents, str(source))
    except PickledCode:
        if not options.trust_pickle:
            raise
        return None
    except UnreadableModel as error:
        # A pickle that does more with what it names than the reader follows; damage has another cause, or none.
        if not options.trust_pickle or not isinstance(error.__cause__, PickleError):
            raise
        return None
    return contents


def _read_as_data(path: Path, source: Path) -> _Contents:
    where = str(source)
    data = read_model_file(path)
    names: tuple[str, ...] = ()
    if is_safetensors_file(path, data):
        content: Any = safetensors_contents(data, where)
    else:
        content, names = read_torch_file(data, where)
    return _Contents(content, tensors_of(content, where), names)


def _find_in(
    contents: _Contents, where: str, options: ConvertOptions, on_message: Callable[[str], None]
) -> FoundNetwork:
    content, tensors, _ = contents
    own = _named(content)
    if options.arch is not None:
        chosen = match_architecture(tensors, resolve_given(options.arch), where, options.part)
        if own and chosen.arch not in own:
            on_message(f"--arch {chosen.arch} is used; the file says {own[0]}")
        return FoundNetwork(content, tensors, chosen)
    if own:
        try:
            return FoundNetwork(content, tensors, match_architecture(tensors, own, where, options.part))
        except StateDictMismatch as mismatch:
            if _is_checkpoint(content):
                raise
            try:
                chosen = guess(tensors, where, options.part)
            except ModelError as error:
                raise mismatch from error  # it says what differs from the architecture that the file names
        on_message(f"The file says {own[0]}, but its weights are those of {chosen.arch}, which is used")
        return FoundNetwork(content, tensors, chosen)
    _refuse_unknown(content, where)
    chosen = guess(tensors, where, options.part)
    rare = RARE_TWINS.get(chosen.arch, ())
    on_message(
        f"The file names no architecture that is known; its weights are those of {chosen.arch}"
        + (f". If it is {' or '.join(rare)}, which has the same keys, name it with --arch" if rare else "")
    )
    return FoundNetwork(content, tensors, chosen)


def _without_weights(contents: _Contents, where: str) -> ModelError:
    code = _code_in(contents.names)
    if code:
        return PickledCode(
            f"{where} is a pickled Python object ({', '.join(code[:_MAX_NAMES])}), and no weights are found without "
            "running the code it names. If you made it yourself, run that once: "
            f"resnet-service convert --trust-pickle {where} OUTPUT.safetensors"
        )
    if not isinstance(contents.content, dict):
        return UnreadableModel(f"{where} holds a {type(contents.content).__name__}, not the weights of a network.")
    return UnreadableModel(
        f"{where} has no weights: there is not one tensor in it. Save the network's state_dict: "
        "torch.save(model.state_dict(), FILE)"
    )


def _code_in(names: tuple[str, ...]) -> list[str]:
    """Return the names of a pickle that stand for more than tensors and plain values."""
    return [name for name in names if not name.startswith(_PLAIN_GLOBALS) and name.isprintable()]


def _is_checkpoint(content: Any) -> bool:
    return isinstance(content, dict) and "format_version" in content


def _named(content: Any) -> tuple[str, ...]:
    """Return the architectures that the file's name for its own may stand for."""
    for options in options_of(content):
        for key in _ARCH_KEYS:
            value = options.get(key)
            if isinstance(value, str) and (found := resolve(value)):
                return found
    return ()


def _refuse_unknown(content: Any, where: str) -> None:
    """Raise ``UnknownArchitecture`` if the file names an architecture, and it is none that is known."""
    for options in options_of(content):
        for key in _ALWAYS_ARCH_KEYS:
            value = options.get(key)
            if isinstance(value, str) and value.strip():
                known = "no architecture that is known"
                if needs := without_pytorch():
                    known += f" without PyTorch. {needs} Or name its"
                else:
                    known += ". Name its"
                raise UnknownArchitecture(
                    f"{where} names {value[:_MAX_NAME]!r} as its {key}, which is {known} architecture with --arch; one "
                    "that computes differently would give other answers."
                )


def _unpickle(source: Path, target: Path) -> None:
    command = [sys.executable, "-P", "-m", "resnet_service.export.unpickle", str(source), str(target)]
    try:
        child = subprocess.run(  # noqa: S603 - our own module; the paths are arguments, never a shell's
            command, capture_output=True, text=True, timeout=_UNPICKLE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PickledCode(f"{source} did not unpickle within {_UNPICKLE_SECONDS} seconds.") from error
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or ["no message"])[-1]
        if reason.endswith(("No module named 'torch'", "No module named torch")):
            raise RuntimeUnavailable(f"{source} is unpickled by PyTorch. {install_hint('torch')}")
        raise PickledCode(
            f"{source} could not be unpickled ({reason}). A pickled model needs the modules it was made with: "
            "run this command where the training code can be imported."
        )
