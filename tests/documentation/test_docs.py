"""The documentation is run, not believed."""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from resnet_service.cli.app import app
from resnet_service.export.convert import convert as convert_file
from resnet_service.models.labels import LabelSet
from resnet_service.moved_paths import MOVED
from tests.support import foreign
from tests.support.servers import REPOSITORY, ServerProcess, server_process
from tools import tables
from tools.tables import TABLES, with_table

README = (REPOSITORY / "README.md").read_text()


def console(page: str) -> list[tuple[str, str]]:
    """Return the commands of a page's console blocks (lines that begin with `$`), each with the output shown."""
    blocks = re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    pairs = (step.split("\n", 1) for step in steps)
    return [(command.strip(), output.strip()) for command, output in pairs]


CURL = [(command, output) for command, output in console(README) if command.startswith("curl ")]


def test_the_readme_has_curl_examples() -> None:
    assert len(CURL) == 3


@pytest.mark.parametrize(("command", "shown"), CURL, ids=[command for command, _ in CURL])
def test_curl_examples_answer_as_shown(command: str, shown: str, imagenet_server: ServerProcess) -> None:
    arguments = shlex.split(command.replace("http://localhost:8080", imagenet_server.url))
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True, cwd=REPOSITORY)
    answered, expected = json.loads(done.stdout), json.loads(shown)
    assert answered.keys() == expected.keys()
    assert answered.get("code") == expected.get("code")
    # Scores and times vary with machine and model; what the shown model says it sees does not.
    if answered.get("model", {}).get("arch") == expected.get("model", {}).get("arch"):
        assert [seen["label"] for seen in answered.get("predictions", ())] == [
            seen["label"] for seen in expected.get("predictions", ())
        ]


GENERATED = [pytest.param(name, table, id=table.__name__) for name, made in TABLES.items() for table in made]


@pytest.mark.parametrize(("name", "make_table"), GENERATED)
def test_tables_are_what_the_code_says(name: str, make_table: Callable[[], str]) -> None:
    page = (REPOSITORY / "docs" / name).read_text()
    assert with_table(page, make_table()) == page, "run `make tables`"


@pytest.mark.parametrize(("name", "make_table"), GENERATED)
def test_a_table_that_is_old_would_be_found(name: str, make_table: Callable[[], str]) -> None:
    table = make_table()
    page = f"before\n\n{table.rsplit(chr(10), 1)[0]}\n\nafter\n"
    assert with_table(page, table) == f"before\n\n{table}\n\nafter\n"
    with pytest.raises(LookupError, match="no table begins with"):
        with_table("another page", table)


def test_a_newcomer_reads_the_readme_in_two_minutes() -> None:
    prose = re.sub(r"^```.*?^```|^\|.*?$|\]\(.*?\)", "", README, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) < 2 * 240, "words, at the 240 a minute that people read"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a page's commands find the repository's files, and may write others."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("README.md", "examples", "checkpoints", "labels"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


API = [command for command, _ in console((REPOSITORY / "docs" / "api.md").read_text())]


@pytest.mark.parametrize("command", API)
def test_the_api_answers_as_its_page_asks(command: str, checkout: Path, imagenet_server: ServerProcess) -> None:
    arguments = shlex.split(command.replace("http://localhost:8080", imagenet_server.url))
    done = subprocess.run([*arguments, "--fail", "--silent"], capture_output=True, timeout=60, check=True, cwd=checkout)
    if "--output" in arguments:
        written = (checkout / arguments[arguments.index("--output") + 1]).read_bytes()
        assert written.startswith(b"\x89PNG") or len(written) % 4 == 0
    else:
        assert "error" not in json.loads(done.stdout)


def test_the_api_page_has_every_operation() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text()
    described = json.loads((REPOSITORY / "docs" / "openapi.json").read_text())["paths"]
    for path in described:
        assert f" {path}`" in page or path == "/" or path.startswith("/v2"), path


START = [
    command for command, _ in console((REPOSITORY / "docs" / "start.md").read_text()) if "resnet-service" in command
]


@pytest.mark.parametrize("command", START)
def test_the_commands_of_the_first_page_work(command: str, checkout: Path) -> None:
    program = [sys.executable, "-m", "resnet_service", *shlex.split(command)[1:]]
    subprocess.run(program, capture_output=True, timeout=60, check=True, cwd=checkout)


def test_the_first_page_has_every_command() -> None:
    page = (REPOSITORY / "docs" / "start.md").read_text()
    shown = [command for command in app.registered_commands if not command.hidden]
    commands = [command.name or command.callback.__name__ for command in shown if command.callback]
    assert len(commands) > 5
    for name in commands:
        assert f"| `resnet-service {name}" in page, name


@pytest.mark.slow
def test_the_page_of_exported_models_works(tmp_path: Path) -> None:
    """With the model of the repository as `checkpoints/mine.safetensors`, and the sample of its data as `images`."""
    page = (REPOSITORY / "docs" / "exported-models.md").read_text()
    commands = [shlex.split(command) for command, _ in console(page)]
    export, serve, convert, import_onnx = (arguments for program, *arguments in commands if program == "resnet-service")
    mine = tmp_path / "checkpoints" / "mine.safetensors"
    mine.parent.mkdir()
    shutil.copy(REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors", mine)
    (tmp_path / "labels").symlink_to(REPOSITORY / "labels")
    (tmp_path / "images").symlink_to(REPOSITORY / "tests" / "data" / "fashion-mnist")

    def run(command: list[str]) -> None:
        program = [sys.executable, "-m", "resnet_service", *command]
        subprocess.run(program, capture_output=True, timeout=300, check=True, cwd=tmp_path)

    run(export)
    convert_file(mine, mine.with_suffix(".pth"))
    mine.unlink()
    run(convert)
    assert mine.stat().st_size > 10**7
    foreign.written(tmp_path / "model.onnx", foreign.classifier())
    (tmp_path / "labels.json").write_text(LabelSet.numbered(3).model_dump_json())
    run(import_onnx)
    server = ServerProcess(*serve[1:], cwd=tmp_path)
    try:
        assert httpx.get(f"{server.url}/metadata", timeout=10).json()["precision"] == "int8"
    finally:
        server.stop()


DECISIONS = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "README.zh.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *DECISIONS,
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_each_defence_names_tests_that_there_are() -> None:
    page = (REPOSITORY / "SECURITY.md").read_text()
    rows = re.findall(r"^\| (?!attack|---)(.+?) \| (.+?) \| (.+?) \|$", page, flags=re.MULTILINE)
    assert len(rows) > 10
    for attack, _, proof in rows:
        named = re.findall(r"`(tests/[\w/]*test_\w+\.py)`", proof)
        assert named, attack
        for path in named:
            assert re.search(r"^def test_", (REPOSITORY / path).read_text(), flags=re.MULTILINE), path


def test_every_module_is_in_the_architecture() -> None:
    described = (REPOSITORY / "docs" / "architecture.md").read_text()
    source = REPOSITORY / "src" / "resnet_service"
    for module in source.rglob("*.py"):
        if module.parent != source or not module.name.startswith("__"):
            name = module.relative_to(source).as_posix().removesuffix("__init__.py")
            assert re.search(rf"^\| `{re.escape(name)}` \| \S.* \|$", described, re.MULTILINE), name


def test_a_package_without_a_layer_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LAYERS", tables.LAYERS[1:])
    with pytest.raises(LookupError, match="neither in LAYERS nor in BESIDE: cli"):
        tables.packages_table()


def test_every_path_that_has_moved_is_in_the_architecture() -> None:
    described = (REPOSITORY / "docs" / "architecture.md").read_text()
    for old, new in MOVED.items():
        if old != "resnet_service.prepare":  # a package that held nothing by itself
            assert re.search(
                rf"^\| `(python -m )?{re.escape(old)}` \| `(python -m )?{re.escape(new)}` \|", described, re.M
            )


def test_every_decision_is_complete_and_in_the_index() -> None:
    index, *records = [page.read_text() for page in sorted(DECISIONS, key=lambda page: page.name != "README.md")]
    names = [page.name for page in DECISIONS if page.name != "README.md"]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name, record in zip(names, records, strict=True):
        title = record.splitlines()[0].removeprefix("# ")
        assert f"[{name[:4]} {title}]({name})" in index
        assert re.search(r"^Status: (accepted|replaced by .+) \(\d+\.\d+\.\d+\)$", record, re.MULTILINE), name
        assert re.findall(r"^## (.+)$", record, re.MULTILINE) == ["Context", "Decision", "Consequences"], name


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_files_that_a_decision_names_exist(page: Path) -> None:
    for name in re.findall(r"`([\w/.]+/[\w.]+\.py)`", page.read_text()):
        assert any((folder / name).exists() for folder in (REPOSITORY, REPOSITORY / "src" / "resnet_service")), name


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    described = (REPOSITORY / "docs" / "architecture.md").read_text()
    for requirement in [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]:
        name = re.split(r"[<>=\[]", requirement)[0]
        assert f"**{name}**" in described, name


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= targets, page


@pytest.mark.slow
def test_own_model_works_from_top_to_bottom(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "own-model.md").read_text()
    (tmp_path / "checkpoints").mkdir()
    shutil.copytree(REPOSITORY / "tests" / "data" / "fashion-mnist", tmp_path / "images")
    shutil.copy(REPOSITORY / "checkpoints" / "resnet18-fashion-mnist.safetensors", tmp_path / "checkpoints")
    (tmp_path / "page.py").write_text("".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)))

    def run(command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
        return done.stdout

    run([sys.executable, "page.py"])
    answers: list[str] = []
    server: ServerProcess | None = None
    try:
        for command, _ in console(page):
            program, *arguments = shlex.split(command)
            if arguments[0] == "serve":
                server = ServerProcess(*arguments[1:], cwd=tmp_path)
            elif program == "resnet-service":
                run([sys.executable, "-m", "resnet_service", *arguments])
            else:
                assert server is not None
                answers.append(run(shlex.split(command.replace("http://localhost:8080", server.url))))
    finally:
        if server is not None:
            server.stop()
    predictions, chinese, metadata = map(json.loads, answers)
    assert predictions["predictions"][0]["label"] == "sandal"
    assert chinese["predictions"][0]["label"] == "凉鞋"
    assert metadata["metadata"]["provenance"]["source"] == "fine-tuned from resnet18-fashion-mnist"
    assert metadata["metadata"]["evaluations"][0]["top1"] > 90
    assert (tmp_path / "plots" / "confusion.png").exists()


def test_batch_works_from_top_to_bottom(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "batch.md").read_text()
    shutil.copytree(REPOSITORY / "tests" / "data" / "fashion-mnist", tmp_path / "images")
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(REPOSITORY / "checkpoints" / "resnet18-fashion-mnist-int8.onnx", tmp_path / "checkpoints")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)

    def without_time(said: str) -> str:
        return re.sub(r" in [\d.]+ s \([\d,]+/s\)", "", " ".join(said.split()))

    commands = console(page)
    assert len(commands) == 2
    for command, shown in commands:
        said = run("-m", "resnet_service", *shlex.split(command)[1:]).stderr
        assert without_time(shown) in without_time(said)
    (script,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    error, model = run("-c", script).stdout.splitlines()
    assert error.endswith("LICENSE not_an_image")
    assert model == "resnet18-fashion-mnist-int8"


CLIENTS = (REPOSITORY / "docs" / "clients.md").read_text()
CLIENT_BLOCKS = re.findall(r"^```python\n(.*?)^```", CLIENTS, re.MULTILINE | re.DOTALL)
CLIENT_COMMANDS = [command for command, _ in console(CLIENTS) if "curl " in command]


@pytest.fixture(scope="module")
def fashion_server() -> Iterator[ServerProcess]:
    """Start what the page says to start."""
    (serve,) = [command for command, _ in console(CLIENTS) if " serve " in command]
    with server_process(*shlex.split(serve)[2:]) as server:
        yield server


def test_clients_has_them_all() -> None:
    for name in ("httpx", "Client", "AsyncClient", "tritonclient", "kserve", "huggingface_hub"):
        assert any(re.search(rf"\bimport .*\b{name}\b|\bfrom {name}\b", block) for block in CLIENT_BLOCKS), name
    assert len(CLIENT_COMMANDS) == 4


@pytest.mark.parametrize("block", CLIENT_BLOCKS, ids=lambda block: block.split("\n")[0])
def test_clients_in_python_get_their_answers(block: str, fashion_server: ServerProcess) -> None:
    """Each in a process of its own, as its users run it."""
    if "kserve" in block and sys.version_info >= (3, 14):
        pytest.skip("kserve has no release for Python 3.14")
    script = block.replace("localhost:8080", fashion_server.url.removeprefix("http://"))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("command", CLIENT_COMMANDS)
def test_clients_with_curl_get_their_answers(command: str, fashion_server: ServerProcess) -> None:
    script = command.replace("http://localhost:8080", fashion_server.url)
    shell = ["bash", "-c", script]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True, cwd=REPOSITORY)
    assert json.loads(done.stdout).keys() & {"predictions", "inputs", "outputs"}
