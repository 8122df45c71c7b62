"""Finding images and reading them: folders, globs, single files, Parquet with images' bytes, on any fsspec URL."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from resnet_service.batch.items import Image, as_text
from resnet_service.batch.storage import Place, locate
from resnet_service.errors import BodyTooLarge, InvalidBatchInput, MissingImage, RequestError

# One image's bytes may be many times what the service takes from strangers; still, memory is bounded by it.
MAX_IMAGE_BYTES = 64 * 2**20
# Read together: enough that an object store's latency is paid once for many, little enough to hold two groups a worker.
GROUP_IMAGES = 32
GROUP_BYTES = 64 * 2**20

_PARQUET = ".parquet"
_PREFERRED = ("image", "bytes")


class Read(NamedTuple):
    """What reading one image came to: its bytes; or an error of the input itself; or why it could not be read now.

    ``unread`` is not a result. It may pass (a store that is down, a file without permission), so it is left to the
    next run.
    """

    image: Image
    path: str
    data: bytes = b""
    error: RequestError | None = None
    unread: str | None = None


class _Columns(NamedTuple):
    """Where a Parquet file keeps images: column names, and the fields within where they are structs."""

    data: str
    data_field: str | None
    path: str | None
    path_field: str | None

    @property
    def wanted(self) -> list[str]:
        return [self.data] if self.path in (None, self.data) else [self.data, str(self.path)]


def list_images(url: str, *, outside: str | None = None) -> list[Image]:
    """List every image that ``url`` means, in a stable order.

    Args:
        url: A folder (searched to its depths, hidden files left out), a glob, or a file; Parquet files among them stand
            for the images in their rows.
        outside: The output, which must not lie in what is read: a second run would classify the first one's results.

    Raises:
        InvalidBatchInput: Nothing there, not a Parquet file, one without images, or the output lies within.

    """
    place = locate(url)
    try:
        files = _files(place)
    except OSError as error:
        raise InvalidBatchInput(f"{url} cannot be listed: {error.strerror or error}.") from error
    if not files:
        raise InvalidBatchInput(f"There are no images in {url}.")
    forbidden = outside and outside.rstrip("/") + "/"
    images: list[Image] = []
    for path, size in files:
        source = place.url(path)
        if forbidden and source.startswith(forbidden):
            raise InvalidBatchInput(f"The output {outside} lies within the input {url}; choose another place for it.")
        if path.endswith(_PARQUET):
            images += (Image(source, row) for row in range(_rows(place, path)))
        else:
            images.append(Image(source, None, size))
    if not images:
        raise InvalidBatchInput(f"The Parquet files in {url} have no rows.")
    return images


def read_images(images: Sequence[Image]) -> Iterator[list[Read]]:
    """Read images, in order and in groups; nothing that concerns single images is raised."""
    for parquet, run in groupby(images, lambda one: None if one.row is None else one.source):
        if parquet is not None:
            yield from _read_rows(parquet, list(run))
        else:
            for group in _groups(run):
                yield _read_files(group)


def _files(place: Place) -> list[tuple[str, int | None]]:
    filesystem, path = place.filesystem, place.path
    if filesystem.isdir(path):
        found = filesystem.find(path, detail=True)
        start = len(path.rstrip("/")) + 1
        found = {name: facts for name, facts in found.items() if not _hidden(name[start:])}
    elif filesystem.exists(path):  # before globs: a bracket may be part of a name
        found = {path: filesystem.info(path)}
    else:
        found = filesystem.glob(path, detail=True)
    files = [(name, _size(place, name, facts)) for name, facts in found.items() if _is_file(place, name, facts)]
    return sorted(files, key=lambda file: as_text(file[0]))


def _is_file(place: Place, name: str, facts: dict[str, Any]) -> bool:
    """Tell files, and links to files, from folders and from what a read could wait on for ever, such as a pipe."""
    if place.local:
        return Path(name).is_file() or not Path(name).exists()  # a link that leads nowhere will be named as unread
    return facts.get("type") != "directory"


def _size(place: Place, name: str, facts: dict[str, Any]) -> int | None:
    if place.local:
        return Path(name).stat().st_size if Path(name).exists() else None
    return facts.get("size")


def _hidden(path: str) -> bool:
    """Files that begin with a dot or an underscore are bookkeeping, as Spark, Hive and Arrow have it."""
    return any(step.startswith((".", "_")) for step in path.split("/"))


def _rows(place: Place, path: str) -> int:
    try:
        with place.filesystem.open(path) as file:
            parquet = pq.ParquetFile(file)
            _columns(parquet.schema_arrow, place.url(path))
            return int(parquet.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise InvalidBatchInput(f"{as_text(place.url(path))} cannot be read as Parquet: {_one_line(error)}.") from error


def _columns(schema: pa.Schema, where: str) -> _Columns:
    """Find the column of images: the one that is binary, or a struct with binary ``bytes`` as Hugging Face has it."""
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
            f"{where} needs one binary column with the images' bytes, or one that is called image or bytes; "
            f"it has {', '.join(f'{field.name} ({field.type})' for field in schema)}."
        )
    if "path" in schema.names and pa.types.is_string(schema.field("path").type):
        return _Columns(name, candidates[name], "path", None)
    kind = schema.field(name).type
    if candidates[name] and any(inner.name == "path" and pa.types.is_string(inner.type) for inner in kind):
        return _Columns(name, candidates[name], name, "path")
    return _Columns(name, candidates[name], None, None)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _groups(images: Iterator[Image]) -> Iterator[list[Image]]:
    group: list[Image] = []
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


def _read_files(group: list[Image]) -> list[Read]:
    """Read whole files together, which object stores' file systems do at the same time."""
    slots = [locate(image.source) for image in group]
    # A range, since ``cat`` would take brackets in names for globs, and so that no file is read beyond the limit. An
    # empty object has no range.
    wanted = [index for index, image in enumerate(group) if image.size != 0]
    contents: list[Any] = [b""] * len(group)
    if wanted:
        paths = [slots[index].path for index in wanted]
        ends = [MAX_IMAGE_BYTES + 1] * len(paths)
        found = slots[0].filesystem.cat_ranges(paths, [0] * len(paths), ends, on_error="return")
        for index, content in zip(wanted, found, strict=True):
            contents[index] = content
    return [_judged(image, as_text(image.source), content) for image, content in zip(group, contents, strict=True)]


def _read_rows(source: str, images: list[Image]) -> Iterator[list[Read]]:
    """Read rows of one Parquet file, no more of it in memory than a few batches; ``images`` are in order of rows."""
    rows = {image.row: image for image in images}
    try:
        place = locate(source)
        with place.filesystem.open(place.path) as file:
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
    yield [Read(image, image.name, unread="The file has fewer rows than before.") for image in rows.values()]


def _from_batch(batch: pa.RecordBatch, columns: _Columns, group: list[Image | None]) -> Iterator[Read]:
    data = _column(batch, columns.data, columns.data_field)
    paths = None if columns.path is None else _column(batch, columns.path, columns.path_field)
    for index, image in enumerate(group):
        if image is not None:
            path = None if paths is None else paths[index].as_py()
            content = data[index].as_py()
            yield _judged(
                image, path or image.name, MissingImage("The row has no image.") if content is None else content
            )


def _column(batch: pa.RecordBatch, name: str, field: str | None) -> pa.Array:
    column = batch.column(name)
    return column if field is None else column.field(field)


def _judged(image: Image, path: str, content: object) -> Read:
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
