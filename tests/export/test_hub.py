"""Pulling from a stand-in for the Hugging Face Hub: the networks of other libraries, and a Hub that fails.

The Hub's library reads its environment when it is imported, so each pull runs in a child process.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import timm
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from resnet_service.imaging.decode import decode
from resnet_service.imaging.preprocess import crop, normalise
from resnet_service.models.checkpoint.checkpoint import load_checkpoint
from resnet_service.models.checkpoint.weights import read_weights
from resnet_service.models.graphs import build_graph
from resnet_service.models.labels import labels_for
from resnet_service.models.metadata import IMAGENET_MEAN
from resnet_service.models.networks import ARCHITECTURES
from resnet_service.system.files import sha256_of
from tests.support.hub import (
    COMMIT,
    WEIGHTS,
    StandIn,
    logits_of,
    photographs,
    stand_in,
    timm_repository,
    transformers_repository,
)
from tests.support.images import CAT
from tests.support.servers import REPOSITORY, cli, cli_here

TIMM_DATA: Any = timm.data  # it ships no types
PETS = "acme/pets"
SMALL = "acme/test-resnet"  # a repository with a network that needs timm, and few weights
CHILD_SECONDS = 100

# Each line is what to pull; each answer, the class and text of an error, or the file, and the seconds.
PULL = """
import json, sys, time
from pathlib import Path
hidden, into, setup, *names = sys.argv[1:]
for name in filter(None, hidden.split(",")):
    sys.modules[name] = None
from resnet_service.errors import ServiceError
from resnet_service.export.sources.base import PullRequest
from resnet_service.export.pull import pull
exec(setup)
for name in names:
    begin, messages, progress = time.monotonic(), [], []
    request = PullRequest(name if name != "default" else None, Path(into), on_message=messages.append,
                          progress=lambda done, total, speed="": progress.append((done, total)))
    try:
        answer = ["", str(pull("hub", request).path)]
    except (ServiceError, ModuleNotFoundError) as error:
        answer = [type(error).__name__, getattr(error, "name", None) or str(error)]
    print(json.dumps([*answer, time.monotonic() - begin, messages, progress[-1:]]))
"""


class Answer(NamedTuple):
    """What became of a pull: the class of its error, the text of it or the path, seconds, messages, last progress."""

    error: str
    text: str
    seconds: float
    messages: list[str]
    progress: list[list[int]]


class Made(NamedTuple):
    """Repositories, and the networks that they were made of."""

    folder: Path
    networks: dict[str, nn.Module]


def pulled(hub: StandIn, tmp: Path, *names: str, hidden: str = "", setup: str = "", **environment: str) -> list[Answer]:
    """Pull in one child process, after the code ``setup``; the ``hidden`` packages seem not to be installed there."""
    begin = {**os.environ, "HF_HOME": str(tmp / "hf"), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PULL, hidden, str(tmp / "out"), setup, *names],
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
        check=False,
        cwd=REPOSITORY,
        env={**begin, **environment},
    )
    assert done.returncode == 0, done.stderr
    return [Answer(*json.loads(line)) for line in done.stdout.splitlines()]


WITHOUT_TORCH = "torch,torchvision,timm,transformers,safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("repositories")
    imagenet = TIMM_DATA.ImageNetInfo("imagenet-1k")
    words = [imagenet.label_name_to_description(name) for name in imagenet.label_names()]
    labels = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n1": "cat", "n2": "dog", "n3": "cow"}}
    small = {"size": {"shortest_edge": 160}, "crop_pct": 0.9, "resample": 2}
    colours = {"image_mean": [0.4, 0.45, 0.5], "image_std": [0.2, 0.25, 0.3]}
    basic = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    networks = {
        "timm/resnet18.tv_in1k": timm_repository(folder, "timm/resnet18.tv_in1k", "resnet18.tv_in1k", {}),
        PETS: timm_repository(folder, PETS, "resnet18", labels, num_classes=3),
        "timm/tf_efficientnet_lite0.in1k": timm_repository(
            folder, "timm/tf_efficientnet_lite0.in1k", "tf_efficientnet_lite0.in1k", {}
        ),
        SMALL: timm_repository(folder, SMALL, "test_resnet", {"label_names": ["a", "b"]}, num_classes=2),
        "acme/imagenet-18": transformers_repository(folder, "acme/imagenet-18", words, {**small, **colours}, **basic),
        "acme/flowers-50": transformers_repository(folder, "acme/flowers-50", ["rose", "tulip"], small),
    }
    timm_repository(folder, "acme/strided", "resnet18", {}, num_classes=2, output_stride=16)
    transformers_repository(folder, "acme/bottleneck", ["a"], small, downsample_in_bottleneck=True)
    (folder / "acme/pickled").mkdir()
    (folder / "acme/pickled/config.json").write_text("{}")
    (folder / "acme/pickled/pytorch_model.bin").write_bytes(b"\x80\x02.")
    return Made(folder, networks)


@pytest.fixture
def hub(made: Made) -> Iterator[StandIn]:
    with stand_in(made.folder) as hub:
        yield hub


GRAPHS = [PETS, "acme/imagenet-18", "acme/flowers-50", "timm/tf_efficientnet_lite0"]


@pytest.fixture(scope="module")
def checkpoints(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """Pull all networks that have a graph, without PyTorch, and the one that has none, with it."""
    folder = tmp_path_factory.mktemp("pulled")
    with stand_in(made.folder) as hub:
        answers = pulled(hub, folder, *GRAPHS, hidden=WITHOUT_TORCH)
        answers += pulled(hub, folder, SMALL)
    assert [answer.error for answer in answers] == [""] * len(answers), answers
    return dict(zip([*GRAPHS, SMALL], answers, strict=True))


def answers(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the logits of a pulled checkpoint: by its graph, or by PyTorch where there is none."""
    state, metadata, _ = read_weights(path)
    if metadata.arch not in ARCHITECTURES:
        return logits_of(load_checkpoint(path).model, pixels, metadata)
    graph = build_graph(state, metadata, str(path))[0].SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"pixels": pixels})[0]
    return logits


@pytest.mark.parametrize("name", [*GRAPHS, SMALL])
def test_a_pulled_network_answers_as_its_own_library(name: str, made: Made, checkpoints: dict[str, Answer]) -> None:
    path = Path(checkpoints[name].text)
    metadata = read_weights(path).metadata
    pixels = photographs(metadata.input_size, metadata.resize_size)
    network = made.networks.get(name) or made.networks[f"{name}.in1k"]
    expected = logits_of(network, pixels, metadata)
    assert np.abs(expected[0] - expected[1]).max() > 0.01, "the images make no difference"
    found = answers(path, pixels)
    assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    size = (made.folder / (name if name in made.networks else f"{name}.in1k") / WEIGHTS).stat().st_size
    assert checkpoints[name].progress == [[size, size]]


@pytest.mark.parametrize(
    ("name", "stem", "arch", "names"),
    [
        ("acme/pets", "acme--pets", "resnet18", ["cat", "dog", "cow"]),
        ("acme/flowers-50", "acme--flowers-50", "resnet50", ["rose", "tulip"]),
        (SMALL, "acme--test-resnet", "timm/test_resnet", ["a", "b"]),
        ("acme/imagenet-18", "acme--imagenet-18", "resnet18", None),
        ("timm/tf_efficientnet_lite0", "efficientnet-lite0-imagenet1k", "timm/tf_efficientnet_lite0", None),
    ],
)
def test_architecture_classes_and_origin_are_those_of_the_repository(
    checkpoints: dict[str, Answer], name: str, stem: str, arch: str, names: list[str] | None
) -> None:
    path = Path(checkpoints[name].text)
    assert path.name == f"{stem}.safetensors"
    metadata = read_weights(path).metadata
    assert metadata.arch == arch
    labels = labels_for(metadata, path)
    assert labels.name == ("imagenet1k" if names is None else "own")
    assert not list(path.parent.glob("*.json")), "the checkpoint carries the names"
    if names is not None:
        assert [label.name for label in labels.classes] == names
    assert metadata.provenance is not None
    assert metadata.provenance.url is not None
    assert f"/resolve/{COMMIT}/{WEIGHTS}" in metadata.provenance.url
    assert metadata.provenance.published_accuracy is None


def test_the_preprocessing_of_timm_is_kept(made: Made, checkpoints: dict[str, Answer]) -> None:
    for name in ("acme/pets", SMALL):
        network: Any = made.networks[name]
        metadata = read_weights(Path(checkpoints[name].text)).metadata
        transform = TIMM_DATA.create_transform(**TIMM_DATA.resolve_model_data_config(network))
        expected = transform(Image.open(CAT).convert("RGB")).permute(1, 2, 0).numpy()
        found = normalise(crop(decode(CAT.read_bytes()).image, metadata)[np.newaxis], metadata)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_preprocessing_of_transformers_is_kept(checkpoints: dict[str, Answer]) -> None:
    metadata = read_weights(Path(checkpoints["acme/imagenet-18"].text)).metadata
    assert (metadata.input_size, metadata.resize_size, metadata.interpolation) == (160, 177, "bilinear")
    assert (metadata.mean, metadata.std) == ((0.4, 0.45, 0.5), (0.2, 0.25, 0.3))


def test_what_cannot_be_served_as_it_is_is_refused(hub: StandIn, tmp_path: Path) -> None:
    names = ["acme/strided", "acme/bottleneck", "acme/pickled", "acme/nothing", "resnet19", "a/../b", SMALL]
    answers = pulled(hub, tmp_path, *names, hidden=WITHOUT_TORCH)
    for answer, (error, text) in zip(
        answers,
        [
            ("UnknownArchitecture", "model_args output_stride"),
            ("UnknownArchitecture", "downsample_in_bottleneck True"),
            ("UnreadableModel", "only as a pickle (pytorch_model.bin)"),
            ("SourceUnreachable", "answered 401 for acme/nothing"),
            ("UnknownArchitecture", "pull timm/resnet50.a1_in1k"),
            ("UnknownArchitecture", "OWNER/NAME"),
            ("ModuleNotFoundError", "timm"),
        ],
        strict=True,
    ):
        assert answer.error == error
        assert text in answer.text
    assert not any(line.startswith("GET") and WEIGHTS in line for line in hub.requests), "weights were fetched"
    assert not (tmp_path / "out").exists()


def test_the_default_is_pinned(hub: StandIn, tmp_path: Path) -> None:
    (answer,) = pulled(hub, tmp_path, "default", hidden=WITHOUT_TORCH)
    assert answer.error == "SourceDigestMismatch"
    assert "694f673d" in answer.text
    assert hub.requests == [f"HEAD /timm/resnet18.tv_in1k/resolve/a987fd6b60f845221bfff84b6f0191273ba56ead/{WEIGHTS}"]


def test_what_is_in_the_cache_needs_no_network(hub: StandIn, tmp_path: Path) -> None:
    digest = sha256_of(hub.file("timm/resnet18.tv_in1k").read_bytes())
    pin = (
        "from resnet_service.export.sources import hub\n"
        f"hub.HUB = {{'resnet18': hub.HubFile('timm/resnet18.tv_in1k', '{COMMIT}', '{digest}', 69.758)}}"
    )
    (answer,) = pulled(hub, tmp_path, "default", hidden=WITHOUT_TORCH, setup=pin)
    assert answer.error == "", answer
    assert not (tmp_path / "hf").exists(), "the cache is only read"
    assert [line.partition(" ")[0] for line in hub.requests] == ["HEAD", "GET"], "no other file counts"
    facts = read_weights(Path(answer.text)).metadata
    assert facts.provenance is not None
    assert (facts.provenance.sha256, facts.provenance.published_accuracy) == (digest, 69.758)
    fill = f"""
from huggingface_hub import hf_hub_download
hf_hub_download("timm/resnet18.tv_in1k", "{WEIGHTS}", revision="{COMMIT}")
for name in ("config.json", "{WEIGHTS}"):
    hf_hub_download("{PETS}", name)
"""
    pulled(hub, tmp_path, setup=fill)
    hub.requests.clear()
    (answer,) = pulled(hub, tmp_path, "default", hidden=WITHOUT_TORCH, setup=pin)
    assert (answer.error, hub.requests) == ("", [])
    found, missing = pulled(hub, tmp_path, PETS, "acme/other", hidden=WITHOUT_TORCH, HF_HUB_OFFLINE="1")
    assert (found.error, hub.requests) == ("", [])
    assert "HF_HUB_OFFLINE" in missing.text


def test_the_command_line_pulls_exports_and_does_nothing_twice(hub: StandIn, tmp_path: Path) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return cli("pull", PETS, "--into", out, *arguments, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"))

    failed = run("--calibration", empty)
    assert (failed.returncode, hub.requests) == (1, []), "the images are checked before the pull"
    (empty / "notes.txt").write_text("no image")
    failed = run("--calibration", empty)
    assert failed.returncode == 1, "an export that fails is not a source that does not deliver"
    assert [path.name for path in sorted(out.iterdir())] == ["acme--pets.safetensors"]
    hub.requests.clear()
    exported = run("--if-missing")
    assert exported.returncode == 0, exported.stderr
    assert hub.requests == [], "the checkpoint is there, and only has to be exported"
    answer = json.loads(cli_here("classify", CAT, "--checkpoint", out / "acme--pets.onnx", "--json").stdout)
    assert {one["label"] for one in answer["predictions"]} == {"cat", "dog", "cow"}
    assert "exists already" in run("--if-missing").stderr
    assert cli_here("pull", "resnet18", "--arch", "resnet50").returncode == 1


def test_a_hub_out_of_reach_names_the_option_for_a_mirror(hub: StandIn, tmp_path: Path) -> None:
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH, HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.error == "SourceUnreachable"
    assert "HF_ENDPOINT" in answer.text


def test_the_command_line_lists_what_is_known_by_name() -> None:
    listed = cli_here("pull", "--list").stdout
    for name in ARCHITECTURES:
        assert name in listed
    assert "top-1 69.8 %" in listed


def test_a_hub_that_refuses_is_reported_with_its_status(hub: StandIn, tmp_path: Path) -> None:
    statuses = (401, 403, 404, 429, 500, 503)
    token = "hf_stand_in"  # noqa: S105 - no secret
    answers = pulled(
        hub, tmp_path, *(f"faults/status-{status}" for status in statuses), hidden=WITHOUT_TORCH, HF_TOKEN=token
    )
    for status, answer in zip(statuses, answers, strict=True):
        assert answer.error == "SourceUnreachable"
        assert f"answered {status} for faults/status-{status}" in answer.text
        assert answer.seconds < 5
        assert token not in answer.text
    assert len(hub.requests) == len(statuses), "a refused request is not repeated"
    assert hub.tokens == {f"Bearer {token}"}


def test_a_silent_hub_fails_within_seconds(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "silent"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "SourceUnreachable"
    assert "no answer within 6 seconds" in answer.text
    assert answer.seconds < 9


def test_a_transfer_that_breaks_off_is_resumed(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "cut"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "", answer
    _, second = (line for line in hub.requests if line.startswith("GET") and WEIGHTS in line)
    begin = re.search(r"bytes=(\d+)-$", second)
    assert begin is not None, second
    assert int(begin[1]) > hub.file(PETS).stat().st_size // 4


def test_other_bytes_are_refused_and_fetched_again(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "other-bytes"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "SourceDigestMismatch"
    assert not (tmp_path / "out").exists()
    hub.fault = None
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "", answer


def test_a_hub_without_digests_is_refused(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "no-digest"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "SourceUnreachable"
    assert "SHA-256" in answer.text


def test_a_configuration_without_bounds_is_refused(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "endless"
    config, names = pulled(hub, tmp_path, PETS, "acme/pickled", hidden=WITHOUT_TORCH)
    assert (config.error, names.error) == ("SuspiciousModel", "SuspiciousModel")
    assert f"{PETS}/config.json has more bytes than 4,000,000" in config.text
    assert hub.sent < 3 * 10**8, "what is beyond the limit was read"


def test_weights_beyond_their_stated_size_are_not_read(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "endless-weights"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "SuspiciousModel"
    assert f"more bytes than {hub.file(PETS).stat().st_size:,}" in answer.text


def test_the_body_of_a_redirect_is_not_read(hub: StandIn, tmp_path: Path) -> None:
    hub.fault = "endless-redirect"
    (answer,) = pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert answer.error == "", answer
    assert hub.sent < 3 * 10**8


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
@pytest.mark.parametrize("header", ["ETag", "X-Repo-Commit"])
def test_no_header_names_a_file_to_write_or_remove(hub: StandIn, tmp_path: Path, header: str, name: str) -> None:
    """The Hub's library takes the names of files in its cache from these headers; the first answer may be harmless."""
    precious, absent = tmp_path / "precious", tmp_path / "absent.py"
    precious.write_text("mine")
    for target in (precious, absent):
        for calm in (0, 1):
            hub.hostile = (name, header, str(target), calm)
            pulled(hub, tmp_path, PETS, hidden=WITHOUT_TORCH)
    assert precious.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) in (["out", "precious"], ["precious"])


def test_of_pinned_weights_a_mirror_sets_neither_preprocessing_nor_labels(
    made: Made, hub: StandIn, tmp_path: Path
) -> None:
    digest = sha256_of(hub.file("timm/resnet18.tv_in1k").read_bytes())
    other = "f" * 40  # not the commit that the stand-in states
    pin = (
        "from resnet_service.export.sources import hub\n"
        f"hub.HUB = {{'resnet18': hub.HubFile('timm/resnet18.tv_in1k', '{other}', '{digest}', 69.758)}}"
    )
    hub.hostile = ("config.json", "", "", 0)
    (answer,) = pulled(hub, tmp_path, "default", hidden=WITHOUT_TORCH, setup=pin)
    assert answer.error == "", answer
    facts = read_weights(Path(answer.text)).metadata
    assert facts.mean == IMAGENET_MEAN
    assert facts.provenance is not None
    assert other in str(facts.provenance.url)
    assert not any("config.json" in line for line in hub.requests)
    assert all(f"/resolve/{other}/" in line for line in hub.requests)
