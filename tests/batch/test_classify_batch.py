"""Batches with the local engine: inputs, outputs, and the rest of a killed run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resnet_service.batch import inputs
from resnet_service.batch.items import BatchImage
from resnet_service.batch.job import BatchConfig, Totals, classify_batch, local_engine
from resnet_service.batch.messages import outcome_text, read_outcome, read_shard, shard_text
from resnet_service.batch.outputs import SCHEMA, Output
from resnet_service.batch.shards import Shard, plan, shard_size, task_count
from resnet_service.batch.worker import Outcome, run_shard
from resnet_service.errors import (
    FileNotWritten,
    InvalidBatchInput,
    InvalidModelOutput,
    InvalidTopK,
    OutOfResources,
    OutputConflict,
    OutputInUse,
)
from resnet_service.inference.base import ImageClassifier
from resnet_service.inference.fake import FakeClassifier
from resnet_service.inference.results import Classification
from tests.support.images import encoded, noise
from tests.support.servers import REPOSITORY, cli

IMAGE = encoded(noise(12, 9), "PNG")
MODEL = REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx"
SAMPLE = REPOSITORY / "tests" / "data" / "fashion-mnist"
CONFIG = BatchConfig(Path("fake"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with 40 images at two depths."""
    for index in range(40):
        path = tmp_path / "in" / ("deep/er" if index % 2 else "") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(IMAGE)
    return tmp_path / "in"


@pytest.fixture
def memory() -> Iterator[str]:
    """Return a URL of fsspec's in-memory file system, which has neither folders nor renames."""
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


def run(source: object, target: object, classifier: ImageClassifier | None = None, top_k: int | None = None) -> Totals:
    chosen = classifier or FakeClassifier()
    config = BatchConfig(Path("fake"), top_k=top_k)
    return classify_batch(str(source), str(target), chosen, local_engine(chosen, 2, config.top_k), config)


def rows(target: object) -> list[dict[str, Any]]:
    filesystem, path = fsspec.core.url_to_fs(str(target))
    shards = [name for name in filesystem.ls(path, detail=False) if name.endswith(".parquet")]
    found = []
    for shard in shards:
        with filesystem.open(shard) as file:
            found += pq.read_table(file).to_pylist()
    return sorted(found, key=lambda row: (row["source"], row["row"] or 0))


def write_parquet(file: Path, columns: dict[str, Any], row_group_size: int = 7) -> Path:
    pq.write_table(pa.table(columns), file, row_group_size=row_group_size)
    return file


def test_a_folder_becomes_a_row_an_image(folder: Path, tmp_path: Path) -> None:
    totals = run(folder, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert [row["path"] for row in found] == sorted(str(path) for path in folder.rglob("*.png"))
    assert (totals.images, totals.written, totals.refused, totals.unread) == (40, 40, 0, 0)
    assert found[0] == {
        "path": str(folder / "00.png"),
        "source": str(folder / "00.png"),
        "row": None,
        "predictions": [{"class_id": i, "label": f"class {i}", "score": float(i == 0)} for i in range(3)],
        "format": "PNG",
        "width": 12,
        "height": 9,
        "error": None,
    }
    assert pq.read_schema(next((tmp_path / "out").glob("*.parquet"))).equals(SCHEMA)


def test_globs_files_and_names_with_brackets(folder: Path, tmp_path: Path) -> None:
    odd = folder / "[01] *.png"
    odd.write_bytes(IMAGE)
    assert run(folder / "1*.png", tmp_path / "glob").written == 5
    assert run(folder / "**" / "1*.png", tmp_path / "deep").written == 10
    assert run(odd, tmp_path / "one").written == 1
    assert rows(tmp_path / "one")[0]["predictions"]


def test_a_name_that_is_not_utf_8_is_written_as_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_bytes(IMAGE)
    assert run(tmp_path / "in", tmp_path / "out").written == 1
    assert rows(tmp_path / "out")[0]["path"].endswith("/\\udcff.png")
    assert run(tmp_path / "in", tmp_path / "out").before == 1


def test_hidden_files_and_pipes_are_left_alone_and_links_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(IMAGE)
    (folder / "link.png").symlink_to(tmp_path / "elsewhere")
    (folder / "nowhere.png").symlink_to(tmp_path / "nowhere")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "_SUCCESS").write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    totals = run(folder, tmp_path / "out")
    assert (totals.written, totals.refused, totals.unread) == (41, 0, 1)


@pytest.mark.parametrize("kind", ["path", "struct", "bare"])
def test_parquet_rows_are_images(kind: str, tmp_path: Path) -> None:
    names = [f"p/{index}.png" for index in range(50)]
    kinds: dict[str, dict[str, Any]] = {
        "path": {"path": names, "jpeg": [IMAGE] * 50},
        "struct": {"image": [{"bytes": IMAGE, "path": name} for name in names], "other": [b"x"] * 50},
        "bare": {"anything": [IMAGE] * 50},
    }
    file = write_parquet(tmp_path / "in.parquet", kinds[kind])
    assert run(file, tmp_path / "out").written == 50
    found = rows(tmp_path / "out")
    assert [(row["source"], row["row"]) for row in found] == [(str(file), index) for index in range(50)]
    expected = [f"{file}#{index}" for index in range(50)] if kind == "bare" else names
    assert [row["path"] for row in found] == expected
    assert all(row["predictions"] for row in found)
    assert run(file, tmp_path / "out").before == 50


def test_urls_in_and_out(memory: str) -> None:
    filesystem = fsspec.filesystem("memory")
    for index in range(30):
        filesystem.pipe_file(f"{memory}/in/{index:02}.png", IMAGE)
    assert run(f"{memory}/in", f"{memory}/out").written == 30
    found = rows(f"{memory}/out")
    assert len({row["source"] for row in found}) == 30
    assert all(row["source"].startswith(f"{memory.replace('//', '///')}/in/") for row in found)
    assert run(f"{memory}/in/*.png", f"{memory}/out").before == 30


def test_bad_images_are_rows_with_an_error(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_bytes(b"hello")
    (folder / "half.png").write_bytes(IMAGE[: len(IMAGE) // 2])
    totals = run(folder, tmp_path / "out")
    assert (totals.written, totals.refused, totals.unread) == (43, 3, 0)
    failed = {Path(row["path"]).stem: row for row in rows(tmp_path / "out") if row["error"]}
    codes = {stem: row["error"]["code"] for stem, row in failed.items()}
    assert codes == {"empty": "no_file", "text": "not_an_image", "half": "broken_image"}
    assert all(row["predictions"] is None and row["format"] is None for row in failed.values())
    assert any(example.startswith(f"{folder}/text.png: These bytes") for example in totals.examples)


def test_a_row_without_an_image_is_a_row_with_an_error(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "in.parquet", {"image": [IMAGE, None]})
    assert run(file, tmp_path / "out").refused == 1
    assert [row["error"] and row["error"]["code"] for row in rows(tmp_path / "out")] == [None, "no_file"]


def test_an_image_beyond_the_limit_is_not_read_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_IMAGE_BYTES", len(IMAGE))
    (folder / "large.png").write_bytes(IMAGE + b"x")
    assert run(folder, tmp_path / "out").refused == 1
    assert [row["error"]["code"] for row in rows(tmp_path / "out") if row["error"]] == ["body_too_large"]


def test_a_network_that_fails_on_an_image_costs_no_other_run(folder: Path, tmp_path: Path) -> None:
    totals = run(folder, tmp_path / "out", FakeClassifier(failure=InvalidModelOutput("The network answered NaN.")))
    assert totals.refused == 40
    assert {row["error"]["code"] for row in rows(tmp_path / "out")} == {"unsound_output"}


def test_what_cannot_be_read_now_is_left_to_the_next_run(folder: Path, tmp_path: Path) -> None:
    classifier = FakeClassifier()

    def vanishing(shards: Sequence[Shard], output: Output) -> Iterator[Outcome]:
        (folder / "00.png").unlink()
        return local_engine(classifier, 2, CONFIG.top_k)(shards, output)

    totals = classify_batch(str(folder), str(tmp_path / "out"), classifier, vanishing, CONFIG)
    assert (totals.written, totals.unread) == (39, 1)
    assert f"{folder}/00.png: No such file or directory." in totals.examples
    (folder / "00.png").write_bytes(IMAGE)
    assert run(folder, tmp_path / "out").written == 1
    assert len(rows(tmp_path / "out")) == len({row["source"] for row in rows(tmp_path / "out")}) == 40


def test_a_second_run_does_only_what_is_missing(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    (folder / "05.png").write_bytes(IMAGE)  # as before, between the others
    (folder / "045.png").write_bytes(IMAGE)
    classifier = FakeClassifier()
    totals = run(folder, tmp_path / "out", classifier)
    assert classifier.started == totals.written
    sources = [row["source"] for row in rows(tmp_path / "out")]
    assert sorted(sources) == sorted(str(path) for path in folder.rglob("*.png"))
    idle = FakeClassifier()
    assert run(folder, tmp_path / "out", idle).written == 0
    assert idle.started == 0


def test_taking_shards_away_leaves_the_others_as_they_are() -> None:
    images = [BatchImage(f"/{index:05}") for index in range(10_000)]
    shards = list(plan(images, set()))
    assert [image for shard in shards for image in shard.images] == images
    done = {image.identity for shard in shards[3:9] for image in shard.images}
    assert [shard.name for shard in plan(images, done)] == [shard.name for shard in shards[:3] + shards[9:]]
    assert len({shard.name for shard in shards}) == len(shards)


@pytest.mark.parametrize(("total", "size"), [(1, 16), (5000, 19), (100_000, 390), (10**7, 1000)])
def test_shards_grow_with_the_batch(total: int, size: int) -> None:
    assert shard_size(total) == size


@pytest.mark.parametrize(
    ("shards", "images", "workers", "tasks"),
    [
        (3, 40, 2, 3),  # at most one for each shard
        (264, 5000, 2, 50),  # a hundred images each
        (264, 5000, 32, 128),  # four for each worker
        (100_000, 10**8, 1000, 20_000),  # the more workers, the longer each task
    ],
)
def test_tasks_are_few_and_enough(shards: int, images: int, workers: int, tasks: int) -> None:
    assert task_count(shards, images, workers) == tasks


def test_doing_a_shard_twice_leaves_it_once(folder: Path, tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"), {})
    shard = next(plan(inputs.list_images(str(folder)), set()))
    for _ in range(2):
        run_shard(shard, FakeClassifier(), output, None)
    assert len(rows(tmp_path / "out")) == len(shard.images)


class Short(FakeClassifier):
    """Has no memory for the first ``failures`` calls."""

    failures = 0

    def classify(self, data: bytes, top_k: int | None = None) -> Classification:
        if self.failures:
            self.failures -= 1
            raise MemoryError
        return super().classify(data, top_k)


def test_what_the_machine_lacks_is_retried_and_never_a_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_service.batch.worker._RETRY_SECONDS", (0, 0, 0))
    output = Output(str(tmp_path / "out"), {})
    shard = next(plan(inputs.list_images(str(folder)), set()))
    classifier = Short()
    classifier.failures = 4
    with pytest.raises(OutOfResources, match="run again to continue"):
        run_shard(shard, classifier, output, None)
    assert not output.done()
    classifier.failures = 3
    run_shard(shard, classifier, output, None)
    assert output.done() == {image.identity for image in shard.images}
    assert all((row["error"] or {}).get("code") != "out_of_resources" for row in rows(tmp_path / "out"))


def test_results_of_another_model_are_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "out")
    with pytest.raises(OutputConflict, match="choose another output"):
        run(folder, tmp_path / "out", FakeClassifier(classes=5))
    with pytest.raises(OutputConflict, match='"top_k": 1'):
        run(folder, tmp_path / "out", top_k=1)


def test_foreign_and_damaged_files_in_the_output_are_named(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(folder, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(OutputConflict, match=r"notes\.txt"):
        run(folder, target)
    (target / "notes.txt").unlink()
    shard = next(target.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(OutputConflict, match="remove it"):
        run(folder, target)


def test_what_a_killed_run_left_half_written_is_removed(folder: Path, tmp_path: Path) -> None:
    rest = tmp_path / "out" / ".part-0123.parquet.abcd.partial"
    rest.parent.mkdir()
    rest.write_bytes(b"PAR1")
    assert run(folder, tmp_path / "out").written == 40
    assert not rest.exists()


def test_one_run_at_a_time(folder: Path, tmp_path: Path) -> None:
    with Output(str(tmp_path / "out"), {}).locked(), pytest.raises(OutputInUse, match="Another run"):
        run(folder, tmp_path / "out")
    assert run(folder, tmp_path / "out").written == 40


@pytest.mark.parametrize("where", ["out", "deep/er/out"])
def test_an_output_within_the_input_is_refused(where: str, folder: Path) -> None:
    (folder / where).mkdir(parents=True)
    (folder / where / "x.parquet").write_bytes(b"")
    with pytest.raises(InvalidBatchInput, match="lies within the input"):
        run(folder, folder / where)


def test_inputs_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"hello")
    write_parquet(tmp_path / "none.parquet", {"number": [1]})
    write_parquet(tmp_path / "two.parquet", {"a": [b"x"], "b": [b"y"]})
    for name, said in (
        ("nothing", "no images in"),
        ("bad.parquet", "cannot be read as Parquet"),
        ("none.parquet", "needs exactly one binary column"),
        ("two.parquet", "needs exactly one binary column"),
        ("nosuchprotocol://x", "cannot be reached"),
    ):
        with pytest.raises(InvalidBatchInput, match=said):
            run(name if "://" in name else tmp_path / name, tmp_path / "out")
    with pytest.raises(InvalidTopK):
        run(folder, tmp_path / "out", top_k=4)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_the_run_and_keeps_what_is_written(folder: Path, tmp_path: Path) -> None:
    class Full(Output):
        def write(self, name: str, results: Sequence[Any]) -> None:
            raise FileNotWritten("The disk is full.")

    classifier = FakeClassifier()

    def engine(shards: Sequence[Shard], output: Output) -> Iterator[Outcome]:
        yield run_shard(shards[0], classifier, output, None)
        yield from local_engine(classifier, 2, CONFIG.top_k)(shards[1:], Full(output.url, {}))

    with pytest.raises(FileNotWritten):
        classify_batch(str(folder), str(tmp_path / "out"), classifier, engine, CONFIG)
    assert run(folder, tmp_path / "out").before == 16
    assert len(rows(tmp_path / "out")) == 40


def test_progress_counts_up_to_all(folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    classifier = FakeClassifier()
    engine = local_engine(classifier, 2, CONFIG.top_k)
    classify_batch(
        str(folder),
        str(tmp_path / "out"),
        classifier,
        engine,
        CONFIG,
        progress=lambda totals: seen.append((totals.written, totals.images)),
    )
    assert seen[0] == (0, 40)
    assert seen[-1] == (40, 40)
    assert seen == sorted(seen)


def test_workers_work_at_the_same_time(folder: Path, tmp_path: Path) -> None:
    both = threading.Barrier(2)
    met = threading.local()

    class Meeting(FakeClassifier):
        def classify(self, data: bytes, top_k: int | None = None) -> Any:
            if not hasattr(met, "other"):  # each thread waits once: a count could be read before the other has counted
                met.other = both.wait(20)
            return super().classify(data, top_k)

    assert run(folder, tmp_path / "out", Meeting()).written == 40


def test_the_command_answers_as_classify_does(tmp_path: Path) -> None:
    done = cli("classify-batch", SAMPLE, tmp_path / "out", "--checkpoint", MODEL, "--json", "--top-k", "2")
    assert done.returncode == 0, done.stderr
    totals = json.loads(done.stdout)
    assert (totals["pictures"], totals["refused"]) == (201, 1)  # the licence is no image
    assert "LICENSE: These bytes are not an image" in done.stderr
    by_path = {row["path"]: row for row in rows(tmp_path / "out")}
    some = sorted(path for path in by_path if path.endswith(".png"))[::40]
    single = cli("classify", *some, "--checkpoint", MODEL, "--json", "--top-k", "2")
    for line in single.stdout.splitlines():
        answer = json.loads(line)
        assert by_path[answer["path"]]["predictions"] == answer["predictions"]
    again = cli("classify-batch", SAMPLE, tmp_path / "out", "--checkpoint", MODEL, "--top-k", "2")
    assert "201 already had results" in again.stderr


def test_a_killed_run_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted(SAMPLE.rglob("*.png"))]
    file = write_parquet(tmp_path / "in.parquet", {"image": [images[index % 200] for index in range(800)]}, 100)
    target = tmp_path / "out"
    command = ["classify-batch", str(file), str(target), "--checkpoint", str(MODEL)]
    kills = 0
    for wanted in (1, 15):
        process = subprocess.Popen([sys.executable, "-m", "resnet_service", *command], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(target.glob("part-*"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is None:
            kills += 1
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    before = len(rows(target))
    assert kills
    assert 0 < before < 800
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["before"] == before
    assert [row["row"] for row in rows(target)] == list(range(800))
    assert not list(target.glob(".*"))


def test_what_goes_between_machines_comes_through() -> None:
    shard = Shard((BatchImage("/a/of\udcff any bytes.png", None, 7), BatchImage("s3://photos/in.parquet", 12)))
    assert read_shard(shard_text(shard)) == shard
    assert read_shard(shard_text(shard)).name == shard.name
    shard_text(shard).encode("ascii")
    outcome = Outcome(3, 2, 1, ("a.png: it is damaged.",))
    assert read_outcome(outcome_text(outcome)) == outcome
    with pytest.raises(FileNotWritten, match=r"^The disk is full\.$"):
        read_outcome(outcome_text(FileNotWritten("The disk is full.")))
