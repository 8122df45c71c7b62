"""What may not be written: the source, a folder, a file whose name says something else."""

from pathlib import Path

import pytest

from resnet_service.errors import FileNotWritten
from resnet_service.export.convert import convert
from resnet_service.export.export import export


@pytest.mark.parametrize(("write", "name"), [(export, "model.onnx"), (convert, "model.pth")])
def test_the_source_is_never_written_over(write: object, name: str, tmp_path: Path) -> None:
    assert callable(write)
    source = tmp_path / name
    source.write_bytes(b"weights")
    (tmp_path / "linked").mkdir()
    link = tmp_path / "linked" / name
    link.symlink_to(source)
    for target in (source, link):
        with pytest.raises(FileNotWritten, match="is the file to read"):
            write(source, target)
    assert source.read_bytes() == b"weights"


@pytest.mark.parametrize("write", [export, convert])
def test_a_folder_is_refused_before_any_work(write: object, checkpoint: Path, tmp_path: Path) -> None:
    assert callable(write)
    with pytest.raises(FileNotWritten, match="is a folder"):
        write(checkpoint, tmp_path)


def test_a_name_that_says_another_kind_of_file_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotWritten, match="names an exported model"):
        convert(checkpoint, tmp_path / "model.onnx")
    with pytest.raises(FileNotWritten, match=r"does not end in \.onnx"):
        export(checkpoint, tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())
