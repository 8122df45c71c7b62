"""What is installed: locks that pin all of it by hash, an audit that does not succeed by not looking, a bill of it."""

import http.server
import json
import re
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.servers import REPOSITORY
from tools import audit, lock

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
RANGES = {
    "requirements/serve.txt": PROJECT["dependencies"],
    "requirements/serve-heic.txt": [*PROJECT["dependencies"], *EXTRAS["heic"]],
    "requirements/dev.txt": [*PROJECT["dependencies"], *EXTRAS["plot"], *EXTRAS["heic"], *EXTRAS["dev"]],
}
HEAVY = re.compile(r"torch|nvidia|cuda|triton|timm|nccl|cudnn|^onnx(script|runtime)|^nncf")


def pins(path: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock, with its hashes."""
    lines = (REPOSITORY / path).read_text().replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        if requirement and not requirement.startswith("#"):
            found.append((Requirement(requirement), hashes))
    return found


def versions(path: str) -> set[tuple[str, str, str]]:
    return {(canonicalize_name(pin.name), str(pin.specifier), str(pin.marker)) for pin, _ in pins(path)}


def test_there_is_a_lock_for_each_purpose() -> None:
    assert set(lock.LOCKS) == set(RANGES)


@pytest.mark.parametrize("path", RANGES)
def test_everything_is_pinned_by_hash_and_by_nothing_else(path: str) -> None:
    found = pins(path)
    assert len(found) > 20
    for requirement, hashes in found:
        assert [clause.operator for clause in requirement.specifier] == ["=="], requirement
        assert requirement.url is None, requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


@pytest.mark.parametrize("path", RANGES)
def test_no_address_and_no_option_is_in_it(path: str) -> None:
    text = (REPOSITORY / path).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^ +--hash=.*$", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    assert not re.search(r"(^|[\s\"'])/", text), "an absolute path"


@pytest.mark.parametrize("path", RANGES)
def test_it_satisfies_the_projects_ranges(path: str) -> None:
    """Fails when pyproject.toml has changed and `make lock` was not run."""
    locked: dict[str, list[Version]] = {}
    for requirement, _ in pins(path):
        version = next(iter(requirement.specifier)).version
        locked.setdefault(canonicalize_name(requirement.name), []).append(Version(version))
    for text in RANGES[path]:
        wanted = Requirement(text)
        found = locked.get(canonicalize_name(wanted.name), [])
        assert found, f"{path} has no {wanted.name}; run `make lock`"
        assert all(version in wanted.specifier for version in found), f"{wanted}: {found}"


def test_what_serves_is_neither_torch_nor_cuda() -> None:
    for path in RANGES:
        assert not [pin.name for pin, _ in pins(path) if HEAVY.search(pin.name.lower())]
    assert [name for name in ("torch", "nvidia-cublas", "onnxruntime") if HEAVY.search(name)], "the pattern is blind"


def test_what_is_developed_with_is_what_serves() -> None:
    assert versions("requirements/serve.txt") <= versions("requirements/dev.txt")
    assert versions("requirements/serve.txt") <= versions("requirements/serve-heic.txt")


@pytest.mark.parametrize("package", ["numpy", "pillow", "openvino", "uvloop", "pydantic-core"])
def test_compiled_packages_have_the_hashes_of_other_platforms_too(package: str) -> None:
    hashes = chain.from_iterable(
        found for pin, found in pins("requirements/serve.txt") if canonicalize_name(pin.name) == package
    )
    assert len(set(hashes)) > 5


# The audit, against a database of our own


@contextmanager
def database(vulnerable: str, unknown: bool = False) -> Iterator[list[str]]:
    """Serve OSV's query on this machine; yield arguments that lead pip-audit there."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            finding = {
                "id": "PYSEC-0000-1",
                "aliases": [],
                "summary": "made up",
                "affected": [
                    {
                        "package": {"name": asked, "ecosystem": "PyPI"},
                        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999.1"}]}],
                    }
                ],
            }
            body = json.dumps({"vulns": [finding]} if asked == vulnerable else {}).encode()
            self.send_response(404 if unknown else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/"
            yield ["--vulnerability-service", "osv", "--osv-url", url]
        finally:
            server.shutdown()
            thread.join(10)


def test_where_all_was_looked_up_and_nothing_found_it_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    with database(vulnerable="nothing") as arguments:
        assert audit.main(arguments) == 0
    assert "No known vulnerability" in capsys.readouterr().out


def test_what_is_found_is_named_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with database(vulnerable="pillow") as arguments:
        assert audit.main(arguments) == 1
    said = capsys.readouterr()
    assert re.search(r"^pillow \S+: PYSEC-0000-1, fixed in 9999.1$", said.out, flags=re.MULTILINE)
    assert "No known" not in said.out


@pytest.mark.parametrize("answering", [False, True])
def test_where_no_database_answers_it_fails_with_a_sentence_in_seconds(
    answering: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    if answering:
        with database(vulnerable="nothing", unknown=True) as arguments:
            assert audit.main(arguments) == 1
    else:
        assert audit.main(["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9/"]) == 1
    assert time.monotonic() - begun < 40
    said = capsys.readouterr()
    assert said.err.startswith("error: no vulnerability database")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_what_a_database_does_not_know_is_not_taken_for_sound(capsys: pytest.CaptureFixture[str]) -> None:
    """pip-audit itself skips it, and succeeds."""
    skipped: audit.Findings = [{"name": "h11", "skip_reason": "not found"}]
    assert audit.main([], lambda *_: skipped) == 1
    assert "no vulnerability database" in capsys.readouterr().err

    def knows_only_the_first(service: str, lock: Path, seconds: float, arguments: list[str]) -> audit.Findings:
        known: audit.Findings = [{"name": "annotated-doc", "version": "1", "vulns": []}]
        return known if seconds == audit.PROBE_SECONDS else known + skipped

    assert audit.main([], knows_only_the_first) == 1
    said = capsys.readouterr()
    assert said.err == "error: could not be looked up: h11.\n"
    assert said.out == ""
    assert audit.main(
        [], lambda service, lock, seconds, arguments: None if seconds > 60 else [{"name": "x", "vulns": []}]
    )
    assert "all of requirements/serve.txt" in capsys.readouterr().err
