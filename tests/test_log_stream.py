import fcntl
import os

from resnet_service.log_stream import LogStream

CAPACITY = 4096


def test_what_cannot_be_written_is_lost_and_counted() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, CAPACITY)
    stream = LogStream(writing)
    stream.write("first\n")
    assert os.read(reading, CAPACITY) == b"first\n"
    stream.write("x" * (CAPACITY - 1) + "\n")
    for _ in range(3):
        stream.write("lost\n")
    os.read(reading, CAPACITY)
    stream.write("again \N{SNOWMAN}\n")
    # A pipe of one page has room for nothing else while there is a line in it.
    assert os.read(reading, CAPACITY).startswith(b"WARNING 3 log messages were lost")
    os.close(writing)
    os.close(reading)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = LogStream(writing)
    assert stream.write("nobody hears it\n") == 16
    os.close(writing)


def test_a_file_takes_it_all(tmp_path: object) -> None:
    path = f"{tmp_path}/log"
    text = "\N{SNOWMAN}" * 10_000 + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    LogStream(descriptor).write(text)
    os.close(descriptor)
    with open(path, encoding="utf-8") as file:
        assert file.read() == text
