"""Batch output: a folder of atomically written Parquet files, and the list of images that have a row."""

import fcntl
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from resnet_service.batch.items import BatchImage
from resnet_service.batch.storage import locate
from resnet_service.errors import FileNotWritten, OutputConflict, OutputInUse, ServiceError
from resnet_service.inference.results import Classification
from resnet_service.system.files import atomic_write

_KEY = b"resnet_service"
_READERS = 16  # files read at the same time, since an object store takes tens of milliseconds for each

SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64()),
        pa.field(
            "predictions",
            pa.list_(pa.struct([("class_id", pa.int32()), ("label", pa.string()), ("score", pa.float64())])),
        ),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("error", pa.struct([("code", pa.string()), ("detail", pa.string())])),
    ]
)


class Result(NamedTuple):
    """One row: name to show, image, and its classification or the error."""

    path: str
    image: BatchImage
    answer: Classification | ServiceError


class Output:
    """A folder of ``part-….parquet``, local or on an fsspec URL; can be sent to other machines."""

    def __init__(self, url: str, made_by: dict[str, object]) -> None:
        """Describe the folder; nothing is read or written yet.

        Args:
            url: The folder; created with the first shard.
            made_by: What the results depend on (model, number of classes, …), stored in each file. Results with other
                values are never mixed with these.

        """
        location = locate(url, OutputConflict)
        self.url = location.url(location.path)
        self._made_by = json.dumps(made_by, sort_keys=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock a local folder, and remove the partial files of a killed run.

        The kernel releases the lock when the process ends. Object stores have no such lock.

        Raises:
            OutputInUse: Another run has locked it.
            FileNotWritten: It cannot be created.

        """
        location = locate(self.url, OutputConflict)
        if not location.local:
            yield
            return
        folder = Path(location.path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise FileNotWritten(f"The folder {folder} cannot be used: {error.strerror}.") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputInUse(
                    f"Another run is writing to {folder}; wait for it, or choose another folder."
                ) from error
            for partial in folder.glob(".part-*.partial"):
                partial.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)

    def done(self) -> set[tuple[str, int | None]]:
        """Return the identities of the images that have a row.

        Raises:
            OutputConflict: There are results of another model or other options, or files of another program.

        """
        location = locate(self.url, OutputConflict)
        filesystem = location.filesystem
        filesystem.invalidate_cache()
        if not filesystem.exists(location.path):
            return set()
        names = [name for name in filesystem.ls(location.path, detail=False) if _visible(name)]
        done: set[tuple[str, int | None]] = set()
        with ThreadPoolExecutor(_READERS) as pool:
            for identities in pool.map(self._identities, names):
                done.update(identities)
        return done

    def write(self, name: str, results: Sequence[Result]) -> None:
        """Write one shard atomically.

        A local file is renamed into place; an object store shows an object only after its upload is complete.

        Raises:
            FileNotWritten: The disk is full, the store is down, …

        """
        buffer = io.BytesIO()
        table = pa.Table.from_pylist([_row(result) for result in results], schema=self._schema)
        pq.write_table(table, buffer, compression="zstd")
        location = locate(self.url, OutputConflict)
        if location.local:
            atomic_write(Path(location.path) / name, buffer.getvalue())
            return
        try:
            location.filesystem.pipe_file(f"{location.path.rstrip('/')}/{name}", buffer.getvalue())
        except OSError as error:
            raise FileNotWritten(f"{self.url}/{name} cannot be written: {error.strerror or error}.") from error

    @property
    def _schema(self) -> pa.Schema:
        return SCHEMA.with_metadata({_KEY: self._made_by.encode()})

    def _identities(self, name: str) -> list[tuple[str, int | None]]:
        filesystem = locate(self.url, OutputConflict).filesystem
        try:
            with filesystem.open(name) as file:
                parquet = pq.ParquetFile(file)
                made_by = (parquet.schema_arrow.metadata or {}).get(_KEY)
                if made_by is None:
                    raise OutputConflict(f"{name} is not a result of classify-batch; choose another output.")
                if made_by.decode() != self._made_by:
                    raise OutputConflict(
                        f"{name} holds results of {made_by.decode()}, and this run would add those of "
                        f"{self._made_by}; choose another output."
                    )
                table = parquet.read(columns=["source", "row"])
        except (OSError, pa.ArrowException) as error:
            raise OutputConflict(
                f"{name} is not a valid Parquet file; remove it, and its images are classified again."
            ) from error
        return list(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))


def _visible(path: str) -> bool:
    return not path.rstrip("/").rsplit("/", 1)[-1].startswith((".", "_"))


def _row(result: Result) -> dict[str, object]:
    source, row = result.image.identity
    columns: dict[str, object] = {"path": result.path, "source": source, "row": row}
    if isinstance(result.answer, ServiceError):
        return columns | {"error": {"code": result.answer.code, "detail": str(result.answer)}}
    answer = result.answer
    return columns | {
        "predictions": [ranked._asdict() for ranked in answer.predictions],
        **answer.image._asdict(),
    }
