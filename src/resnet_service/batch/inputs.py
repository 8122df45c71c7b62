"""Batch input: lists and reads images from folders, globs, files and Parquet, on any fsspec URL."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from resnet_service.batch.items import BatchImage, as_text
from resnet_service.batch.storage import Location, locate
from resnet_service.errors import BodyTooLarge, InvalidBatchInput, MissingImage, RequestError

# Larger than the default limit over HTTP; bounds the memory of a batch.
MAX_IMAGE_BYTES = 64 * 2**20
# Limits of a group, which is read together: large enough to share an object store's latency, small enough to hold two
# groups for each worker.
GROUP_IMAGES = 32
GROUP_BYTES = 64 * 2**20

_PARQUET = ".parquet"
_PREFERRED = ("image", "bytes")


class Read(NamedTuple):
    """The result of reading one image: its bytes, a permanent ``error``, or the reason why it is ``unread``.

    An unread image gets no row. The reason may be temporary (a store that is down, a missing permission), so the next
    run tries again.
    """

    image: BatchImage
    path: str
    data: bytes = b""
    error: RequestError | None = None
    unread: str | None = None


class _Columns(NamedTuple):
    """The columns of a Parquet file with images' bytes and paths; for struct columns, the fields within."""

    data: str
    data_field: str | None
    path: str | None
    path_field: str | None

    @property
    def wanted(self) -> list[str]:
        return [self.data] if self.path in (None, self.data) else [self.data, str(self.path)]


def list_images(url: str, *, outside: str | None = None) -> list[BatchImage]:
    """List every image of ``url``, in a stable order.

    Args:
        url: A folder (searched recursively, without hidden files), a glob, or a file; each row of a Parquet file is an
            image.
        outside: The output, which must not lie within the input: a second run would read the first one's results.

    Raises:
        InvalidBatchInput: There are no images, a Parquet file is invalid or has none, or the output lies within.

    """
    location = locate(url)
    try:
        files = _files(location)
    except OSError as error:
        raise InvalidBatchInput(f"{url} cannot be listed: {error.strerror or error}.") from error
    if not files:
        raise InvalidBatchInput(f"There are no images in {url}.")
    forbidden = outside and outside.rstrip("/") + "/"
    images: list[BatchImage] = []
    for path, size in files:
        source = location.url(path)
        if forbidden and source.startswith(forbidden):
            raise InvalidBatchInput(f"The output {outside} lies within the input {url}; choose another folder.")
        if path.endswith(_PARQUET):
            images += (BatchImage(source, row) for row in range(_rows(location, path)))
        else:
            images.append(BatchImage(source, None, size))
    if not images:
        raise InvalidBatchInput(f"The Parquet files in {url} have no rows.")
    return images


def read_images(images: Sequence[BatchImage]) -> Iterator[list[Read]]:
    """Read images in order and in groups; errors of single images are returned, not raised."""
    for parquet, run in groupby(images, lambda image: None if image.row is None else image.source):
        if parquet is not None:
            yield from _read_rows(parquet, list(run))
        else:
            for group in _groups(run):
                yield _read_files(group)


def _files(location: Location) -> list[tuple[str, int | None]]:
    filesystem, path = location.filesystem, location.path
    if filesystem.isdir(path):
        entries = filesystem.find(path, detail=True)
        start = len(path.rstrip("/")) + 1
        entries = {name: info for name, info in entries.items() if not _hidden(name[start:])}
    elif filesystem.exists(path):  # checked before globs, since a name may contain brackets
        entries = {path: filesystem.info(path)}
    else:
        entries = filesystem.glob(path, detail=True)
    files = [(name, _size(location, name, info)) for name, info in entries.items() if _is_file(location, name, info)]
    return sorted(files, key=lambda file: as_text(file[0]))


def _is_file(location: Location, name: str, info: dict[str, Any]) -> bool:
    """Return whether it is a file or a link to one; reading anything else, such as a pipe, could block for ever."""
    if location.local:
        return Path(name).is_file() or not Path(name).exists()  # a broken link is reported as unread
    return info.get("type") != "directory"


def _size(location: Location, name: str, info: dict[str, Any]) -> int | None:
    if location.local:
        return Path(name).stat().st_size if Path(name).exists() else None
    return info.get("size")


def _hidden(path: str) -> bool:
    """Return whether a name begins with a dot or an underscore: metadata, by a convention of Spark, Hive and Arrow."""
    return any(step.startswith((".", "_")) for step in path.split("/"))


def _rows(location: Location, path: str) -> int:
    try:
        with location.filesystem.open(path) as file:
            parquet = pq.ParquetFile(file)
            _columns(parquet.schema_arrow, location.url(path))
            return int(parquet.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise InvalidBatchInput(
            f"{as_text(location.url(path))} cannot be read as Parquet: {_one_line(error)}."
        ) from error


def _columns(schema: pa.Schema, source: str) -> _Columns:
    """Find the column of images: binary, or a struct with a binary field ``bytes`` as in Hugging Face data sets."""
    candidates: dict[str, str | None] = {}
    for field in schema:
        if _is_binary(field.type):
            candidates[field.name] = None
        elif pa.types.is_struct(field.type) and any(
            inner.name == "bytes" and _is_binary(inner.type) for inner in field.type
        ):
            candidates[field.name] = "bytes"
    name = next((name for name in _PREFERRED if name in candidates), None)
    if name is None and len(candidates) == 1:
        (name,) = candidates
    if name is None:
        raise InvalidBatchInput(
            f"{source} needs exactly one binary column of images, or one that is named image or bytes; it has "
            f"{', '.join(f'{field.name} ({field.type})' for field in schema)}."
        )
    if "path" in schema.names and pa.types.is_string(schema.field("path").type):
        return _Columns(name, candidates[name], "path", None)
    kind = schema.field(name).type
    if candidates[name] and any(inner.name == "path" and pa.types.is_string(inner.type) for inner in kind):
        return _Columns(name, candidates[name], name, "path")
    return _Columns(name, candidates[name], None, None)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _groups(images: Iterator[BatchImage]) -> Iterator[list[BatchImage]]:
    group: list[BatchImage] = []
    held = 0
    for image in images:
        size = MAX_IMAGE_BYTES if image.size is None else min(image.size, MAX_IMAGE_BYTES)
        if group and (len(group) == GROUP_IMAGES or held + size > GROUP_BYTES):
            yield group
            group, held = [], 0
        group.append(image)
        held += size
    if group:
        yield group


def _read_files(group: list[BatchImage]) -> list[Read]:
    """Read whole files together; file systems of object stores read them concurrently."""
    locations = [locate(image.source) for image in group]
    # Ranges, since ``cat`` would read brackets in names as globs and would not stop at the limit. An empty object has
    # no range.
    wanted = [index for index, image in enumerate(group) if image.size != 0]
    contents: list[Any] = [b""] * len(group)
    if wanted:
        paths = [locations[index].path for index in wanted]
        ends = [MAX_IMAGE_BYTES + 1] * len(paths)
        fetched = locations[0].filesystem.cat_ranges(paths, [0] * len(paths), ends, on_error="return")
        for index, content in zip(wanted, fetched, strict=True):
            contents[index] = content
    return [_read_of(image, as_text(image.source), content) for image, content in zip(group, contents, strict=True)]


def _read_rows(source: str, images: list[BatchImage]) -> Iterator[list[Read]]:
    """Read rows of one Parquet file, a few record batches at a time; ``images`` are in row order."""
    rows = {image.row: image for image in images}
    try:
        location = locate(source)
        with location.filesystem.open(location.path) as file:
            parquet = pq.ParquetFile(file)
            columns = _columns(parquet.schema_arrow, source)
            first = 0
            for number in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(number).num_rows
                if any(first + offset in rows for offset in range(count)):
                    row = first
                    for batch in parquet.iter_batches(GROUP_IMAGES, [number], columns.wanted):
                        group = [rows.pop(row + offset, None) for offset in range(len(batch))]
                        yield list(_from_batch(batch, columns, group))
                        row += len(batch)
                        if not rows:
                            return
                first += count
    except (OSError, pa.ArrowException, InvalidBatchInput) as error:
        yield [Read(image, image.name, unread=_one_line(error)) for image in rows.values()]
        return
    yield [
        Read(image, image.name, unread="The file now has fewer rows than when it was listed.")
        for image in rows.values()
    ]


def _from_batch(batch: pa.RecordBatch, columns: _Columns, group: list[BatchImage | None]) -> Iterator[Read]:
    data = _column(batch, columns.data, columns.data_field)
    paths = None if columns.path is None else _column(batch, columns.path, columns.path_field)
    for index, image in enumerate(group):
        if image is not None:
            path = None if paths is None else paths[index].as_py()
            content = data[index].as_py()
            yield _read_of(
                image, path or image.name, MissingImage("The row has no image.") if content is None else content
            )


def _column(batch: pa.RecordBatch, name: str, field: str | None) -> pa.Array:
    column = batch.column(name)
    return column if field is None else column.field(field)


def _read_of(image: BatchImage, path: str, content: object) -> Read:
    if isinstance(content, RequestError):
        return Read(image, path, error=content)
    if not isinstance(content, bytes):
        return Read(image, path, unread=_one_line(content))
    if len(content) > MAX_IMAGE_BYTES:
        return Read(image, path, error=BodyTooLarge(f"The image has more than {MAX_IMAGE_BYTES:,} bytes."))
    return Read(image, path, content)


def _one_line(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
