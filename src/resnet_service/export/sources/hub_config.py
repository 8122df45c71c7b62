"""What the configuration files of a repository say of its model: those of timm, and those of transformers' ResNets.

The files are untrusted. A network that loads but computes otherwise than the architecture of its name is refused by its
configuration, since its weights would fit.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resnet_service.errors import ClassCountMismatch, InvalidLabelSet, InvalidMetadata, UnknownArchitecture
from resnet_service.export.conversion.label_forms import labels_of
from resnet_service.models.checkpoint.arrays import Array
from resnet_service.models.labels import ClassLabel, LabelSet
from resnet_service.models.metadata import ModelMetadata
from resnet_service.models.networks import ARCHITECTURES, state_shapes
from resnet_service.models.transformers_keys import transformers_key
from resnet_service.types import Channels, Interpolation
from resnet_service.validation import describe

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

_TIMM = "timm/"
_IMAGENET_CLASSES = 1000
# The end of timm's tags of weights with ImageNet's classes, such as a1_in1k and fb_in22k_ft_in1k_384.
_IMAGENET_TAG = re.compile(r"in1k(_\d+)?$")
# Of the 1000 names; lists of different makers differ in a few.
_MIN_EQUAL_NAMES = 990

# Pillow's numbers of the filters, which transformers writes.
_RESAMPLING: Mapping[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# Depths and kind of the blocks of transformers' ResNets, and the architecture that is the same.
_RESNETS: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
# The processors of transformers that resize the shorter side and crop the centre, and the beginning of those whose crop
# is given by crop_pct. The end of their names has several forms.
_PROCESSOR = re.compile(r"(ConvNext|CLIP|Bit)(ImageProcessor(Fast|Pil)?|FeatureExtractor)")
# Keys of configurations that change nothing of the computation. Of all others that are not read here, only those
# without a value, and steps that are switched off (do_…), are accepted: what is unknown may compute something else.
_HARMLESS = {
    "_valid_processor_keys", "data_format", "default_to_square", "device", "disable_grouping", "do_convert_rgb",
    "input_data_format", "processor_class", "return_tensors",
}  # fmt: skip
_HARMLESS_OF_RESNET = {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "chunk_size_feed_forward",
    "dtype", "finetuning_task", "initializer_range", "is_encoder_decoder", "label2id", "out_features", "out_indices",
    "output_attentions", "output_hidden_states", "return_dict", "stage_names", "torch_dtype", "torchscript",
    "transformers_version", "use_cache",
}  # fmt: skip
_FOREIGN_CODE = ("quantization_config", "auto_map")
_HIDDEN_SIZES = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}

State = Mapping[str, Array]


class HubModel(NamedTuple):
    """What a repository says of its model.

    Args:
        metadata: Architecture, classes and preprocessing; no label set yet.
        classes: The classes, if the repository names them.
        imagenet: Whether the classes are the 1000 of ImageNet, in their order, though it does not name them.
        licence: As the publisher states it.
        pooling: timm's name of the pooling before the classifier, if the repository states it.
        rename: Gives the tensors the keys of the architecture's ``state_dict``.

    """

    metadata: ModelMetadata
    classes: tuple[ClassLabel, ...]
    imagenet: bool
    licence: str | None
    pooling: str | None
    rename: Callable[[State], dict[str, Array]]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


_Labels = list[str] | dict[str, str]
_Fraction = Annotated[float, Field(ge=0.1, le=10)]
_Count = Annotated[int, Field(ge=0, le=100_000)]


class _Pretrained(_Config):
    """timm's description of published weights, as far as inference depends on it."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    interpolation: str = "bicubic"
    crop_pct: _Fraction = 0.875
    crop_mode: str = "center"
    mean: Channels = (0.485, 0.456, 0.406)
    std: Channels = (0.229, 0.224, 0.225)
    num_classes: _Count | None = None
    label_names: _Labels | None = None
    label_descriptions: dict[str, str] | None = None
    label_offset: int | None = 0
    tag: str | None = None
    license: str | None = None


class _TimmConfig(_Config):
    """``config.json`` of timm, and of transformers' wrapper of timm's networks."""

    architecture: str = Field(pattern=r"^[a-z0-9_]{1,90}$")
    num_classes: _Count | None = None
    global_pool: str | None = None
    model_args: dict[str, Any] | None = None
    label_names: _Labels | None = None
    label_descriptions: dict[str, str] | None = None
    pretrained_cfg: _Pretrained


class _ResNetConfig(_Config):
    """``config.json`` of transformers' ResNets; defaults as there."""

    model_type: Literal["resnet"]
    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: tuple[int, ...] = _HIDDEN_SIZES["bottleneck"]
    depths: tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    problem_type: str | None = None
    num_labels: _Count | None = None
    id2label: dict[str, str] | None = None


class _Size(_Config):
    model_config = ConfigDict(extra="allow")

    shortest_edge: int | None = None
    height: int | None = None
    width: int | None = None


class _Preprocessor(_Config):
    """``preprocessor_config.json`` of transformers."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    do_center_crop: bool | None = None
    do_rescale: bool = True
    do_normalize: bool = True
    size: int | _Size
    crop_size: int | _Size | None = None
    crop_pct: _Fraction | None = None
    resample: int | None = None
    rescale_factor: float = 1 / 255
    image_mean: Channels
    image_std: Channels


ConfigT = TypeVar("ConfigT", bound=_Config)


def parse_config(config: bytes, read: Callable[[str], bytes | None], repository: str) -> HubModel:
    """Return what the configuration of a repository says of its model.

    Args:
        config: ``config.json``.
        read: Returns another file of the repository, or ``None`` if it has none of that name.
        repository: Its name, in messages and for timm's tag.

    Raises:
        UnknownArchitecture: Neither timm's nor a ResNet of transformers, or one that computes otherwise.
        InvalidMetadata: The configuration is damaged, or asks for a preprocessing that this service does not have.
        InvalidLabelSet: The names of the classes are incomplete, too long or not printable.
        ClassCountMismatch: It names another number of classes than the network has.

    """
    content = _parse_object(config, f"{CONFIG} of {repository}")
    if "architecture" in content:
        return _timm(content, repository)
    if content.get("model_type") == "resnet":
        return _resnet(content, read(PREPROCESSOR), repository)
    kind = str(content.get("model_type", "nothing that is known"))[:40]
    raise UnknownArchitecture(
        f"{repository} holds {kind if kind.isprintable() else 'another kind of model'}. pull takes networks of timm "
        "and transformers' ResNets for image classification."
    )


def _timm(content: dict[str, Any], repository: str) -> HubModel:
    if "pretrained_cfg" not in content:  # timm's older form has all in one object
        labels = {"label_names": content["labels"]} if "labels" in content else {}
        content = {"architecture": content["architecture"], "pretrained_cfg": {**content, **labels}}
    config = _validate(_TimmConfig, content, f"{CONFIG} of {repository}")
    for key in _FOREIGN_CODE:
        _refuse_if(bool(content.get(key)), repository, config.architecture, key, content.get(key))
    pretrained = config.pretrained_cfg
    arch = config.architecture if config.architecture in ARCHITECTURES else f"{_TIMM}{config.architecture}"
    num_classes = config.num_classes if config.num_classes is not None else pretrained.num_classes
    if num_classes is None:
        num_classes = _IMAGENET_CLASSES
    if num_classes == 0:
        raise UnknownArchitecture(f"{repository} has no classifier: its configuration says num_classes 0.")
    # The pooling of other architectures is compared when timm has built one.
    pooling = config.global_pool or (config.model_args or {}).get("global_pool")
    pooling = pooling if isinstance(pooling, str) else None
    arguments = {key: value for key, value in (config.model_args or {}).items() if value is not None}
    unusual = sorted(
        key
        for key, value in arguments.items()
        if value != {"num_classes": num_classes, "in_chans": 3, "global_pool": pooling or "avg"}.get(key)
    )
    _refuse_if(bool(unusual), repository, arch, "model_args", ", ".join(key[:40] for key in unusual))
    unlike_ours = arch in ARCHITECTURES and pooling not in (None, "avg")
    _refuse_if(unlike_ours, repository, arch, "global_pool", pooling)
    _refuse_if(bool(pretrained.label_offset), repository, arch, "label_offset", pretrained.label_offset)
    channels, height, width = pretrained.input_size
    if channels != 3 or height != width:
        raise InvalidMetadata(
            f"{repository} takes {channels} channels of {height}x{width} pixels; this service takes squares of three "
            "channels."
        )
    if pretrained.crop_mode != "center":
        raise _no_preprocessing(repository, f"crop_mode {pretrained.crop_mode[:40]!r}")
    metadata = {
        "arch": arch,
        "num_classes": num_classes,
        "input_size": height,
        "resize_size": math.floor(height / pretrained.crop_pct),
        "interpolation": pretrained.interpolation,
        "mean": pretrained.mean,
        "std": pretrained.std,
    }
    names = config.label_names if config.label_names is not None else pretrained.label_names
    descriptions = config.label_descriptions or pretrained.label_descriptions or {}
    classes = _classes(names, descriptions, num_classes, repository)
    tag = pretrained.tag or repository.partition(".")[2]
    unnamed_imagenet = not classes and num_classes == _IMAGENET_CLASSES and bool(_IMAGENET_TAG.search(tag))
    return HubModel(
        ModelMetadata.parse(metadata, f"{CONFIG} of {repository}"),
        classes,
        unnamed_imagenet,
        _printable(pretrained.license),
        pooling,
        dict,
    )


def _resnet(content: dict[str, Any], preprocessor: bytes | None, repository: str) -> HubModel:
    config = _validate(_ResNetConfig, content, f"{CONFIG} of {repository}")
    arch = _RESNETS.get((config.layer_type, config.depths))
    if arch is None or config.hidden_sizes != _HIDDEN_SIZES[config.layer_type] or config.embedding_size != 64:
        raise UnknownArchitecture(
            f"{repository} is a ResNet of other depths or widths than {', '.join(_RESNETS.values())}; none of the "
            "networks that this service has is the same."
        )
    for key in _unknown(content, _ResNetConfig, _HARMLESS_OF_RESNET):
        _refuse_if(True, repository, arch, key, content[key])
    for key in ("downsample_in_first_stage", "downsample_in_bottleneck"):
        _refuse_if(getattr(config, key), repository, arch, key, True)
    _refuse_if(config.hidden_act != "relu", repository, arch, "hidden_act", config.hidden_act)
    _refuse_if(config.num_channels != 3, repository, arch, "num_channels", config.num_channels)
    one_of_many = config.problem_type in (None, "single_label_classification")
    _refuse_if(not one_of_many, repository, arch, "problem_type", config.problem_type)
    num_classes = len(config.id2label) if config.id2label else config.num_labels or 2
    metadata = {"arch": arch, "num_classes": num_classes, **_preprocessing(preprocessor, repository)}
    names = config.id2label
    if names and all(name == f"LABEL_{index}" for index, name in names.items()):  # what transformers writes for none
        names = None
    return HubModel(
        ModelMetadata.parse(metadata, f"{CONFIG} of {repository}"),
        _classes(names, {}, num_classes, repository),
        imagenet=False,
        licence=None,
        pooling=None,
        rename=partial(_renamed, {transformers_key(key): key for key in state_shapes(arch, num_classes)}),
    )


def _preprocessing(data: bytes | None, repository: str) -> dict[str, Any]:
    """Return input size, resize size, interpolation, mean and standard deviation."""
    where = f"{PREPROCESSOR} of {repository}"
    if data is None:
        raise InvalidMetadata(
            f"{repository} has no {PREPROCESSOR}, so nobody can know how its images were prepared. Ask its author for "
            "the file."
        )
    content = _parse_object(data, where)
    found = _validate(_Preprocessor, content, where)
    for size in (found.size, found.crop_size):
        extra = (size.model_extra or {}) if isinstance(size, _Size) else {}
        content |= {f"size.{key}": value for key, value in extra.items()}
    unknown = _unknown(content, _Preprocessor, _HARMLESS)
    if unknown:
        shown = ", ".join(unknown)[:100]
        raise _no_preprocessing(repository, shown if shown.isprintable() else "steps that are not known")
    if not (found.do_resize and found.do_rescale and math.isclose(found.rescale_factor, 1 / 255, rel_tol=1e-6)):
        raise _no_preprocessing(repository, "images that are not resized, or pixels that are not divided by 255")
    kind = found.image_processor_type or found.feature_extractor_type or ""
    if not _PROCESSOR.fullmatch(kind):
        shown = kind[:100]
        raise _no_preprocessing(repository, f"the processor {shown if shown.isprintable() else '…'}")
    side = found.size if isinstance(found.size, int) else found.size.shortest_edge
    if isinstance(found.size, _Size) and (found.size.height, found.size.width) != (None, None):
        side = None
    if isinstance(found.size, int) and content.get("default_to_square"):
        side = None
    if kind.startswith("ConvNext"):
        if found.do_center_crop:
            raise _no_preprocessing(repository, "a second crop")
        # Below 384 pixels, transformers resizes to side / crop_pct and crops; from there on, it distorts to a square.
        if side is None or side >= 384:
            raise _no_preprocessing(repository, "a resize to a square, without keeping the proportions")
        crop, resize = side, int(side / (found.crop_pct or 0.875))
    else:
        square = found.crop_size if isinstance(found.crop_size, int) else _square(found.crop_size)
        keeps_proportions = isinstance(found.size, _Size) or kind.startswith("CLIP")
        if not found.do_center_crop or side is None or square is None or not keeps_proportions:
            raise _no_preprocessing(repository, "a resize to a square, without keeping the proportions")
        crop, resize = square, side
    resample = 3 if found.resample is None else found.resample  # the default of transformers' processors for ResNets
    if resample not in _RESAMPLING:
        raise _no_preprocessing(repository, f"the interpolation {resample}")
    return {
        "input_size": crop,
        "resize_size": resize,
        "interpolation": _RESAMPLING[resample],
        "mean": found.image_mean if found.do_normalize else (0.0, 0.0, 0.0),
        "std": found.image_std if found.do_normalize else (1.0, 1.0, 1.0),
    }


def _unknown(content: Mapping[str, Any], model: type[_Config], harmless: set[str]) -> list[str]:
    """Return the keys of a configuration that may change the computation and are not read here."""
    return sorted(
        key
        for key, value in content.items()
        if key not in model.model_fields
        and key not in harmless
        and value not in (None, [], {})
        and not (value is False and key.startswith("do_"))
    )


def _square(size: "_Size | None") -> int | None:
    return size.height if size is not None and size.height == size.width else None


def _renamed(names: Mapping[str, str], state: State) -> dict[str, Array]:
    return {names.get(key, key): array for key, array in state.items()}


def fits_imagenet(classes: tuple[ClassLabel, ...], imagenet: LabelSet) -> bool:
    """Whether classes are the 1000 of ImageNet in their order: by WordNet's ids, or else by their names.

    Other makers name a class by all words of WordNet for it ("tench, Tinca tinca"), of which the label set has one.
    """
    if len(classes) != len(imagenet):
        return False
    same = sum(
        own.id == found.id or own.name.casefold() in {word.strip() for word in found.name.casefold().split(",")}
        for own, found in zip(imagenet.classes, classes, strict=True)
    )
    return same >= _MIN_EQUAL_NAMES


def _classes(
    names: _Labels | None, descriptions: Mapping[str, str], num_classes: int, repository: str
) -> tuple[ClassLabel, ...]:
    """Return the classes in the order of the outputs; none if the repository names none."""
    if not names:
        return ()
    if len(names) != num_classes:
        raise ClassCountMismatch(f"{repository} names {len(names)} classes, and its network has {num_classes}.")
    shown = {name: descriptions.get(name, name) for name in (names.values() if isinstance(names, dict) else names)}
    if not all(0 < len(text) <= 200 and text.isprintable() for pair in shown.items() for text in pair):
        raise InvalidLabelSet(f"{repository} has names of classes that are empty, too long or not printable.")
    # Where there are descriptions, timm's names are WordNet's ids or the like.
    entries = {
        name: (name, text) if name != text or re.fullmatch(r"n\d{8}", name) else name for name, text in shown.items()
    }
    labels = labels_of(
        {index: entries[name] for index, name in names.items()}
        if isinstance(names, dict)
        else [entries[name] for name in names],
        repository,
    )
    if labels is None:
        raise InvalidLabelSet(f"{repository} names its classes by other indices than 0 to {num_classes - 1}.")
    return labels.classes


def _refuse_if(condition: bool, repository: str, arch: str, key: str, value: object) -> None:
    if condition:
        shown = str(value)[:100]
        raise UnknownArchitecture(
            f"{repository} is not {arch} as this service knows it: its configuration has {key} "
            f"{shown if shown.isprintable() else '…'}, with which the same weights compute something else."
        )


def _no_preprocessing(repository: str, what: str) -> InvalidMetadata:
    return InvalidMetadata(
        f"{repository} asks for {what}. This service resizes the shorter side to a length, and crops the centre."
    )


def _printable(text: str | None) -> str | None:
    return text if text and text.isprintable() and len(text) <= 200 else None


def _parse_object(data: bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:  # damaged, a number of too many digits, too deep
        raise InvalidMetadata(f"{where} is not JSON.") from error
    if not isinstance(content, dict):
        raise InvalidMetadata(f"{where} is not a JSON object.")
    return content


def _validate(model: type[ConfigT], content: dict[str, Any], where: str) -> ConfigT:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InvalidMetadata(f"{where} is not as its library writes it: {describe(error)}") from error
