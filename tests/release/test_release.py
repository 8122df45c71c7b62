"""A release: one version everywhere, refused where it is not ready, and archives that hold what they should."""

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import resnet_service
from tests.support.servers import REPOSITORY
from tools import release, sbom

VERSION = resnet_service.__version__
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
TIME = 1_700_000_000


# The version


@pytest.mark.parametrize("path", release.VERSION_PATTERNS)
def test_the_version_is_the_same_everywhere(path: str) -> None:
    assert release.versions(REPOSITORY)[path] == VERSION


def test_the_version_is_that_of_the_changelog() -> None:
    """Changes may gather above it, under ``Unreleased``, until they are released."""
    newest = re.search(r"^## (\d+\.\d+\.\d+)$", (REPOSITORY / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION
    assert release.newest_heading(REPOSITORY) in {VERSION, "Unreleased"}


def test_contributing_names_each_file_with_the_version() -> None:
    how = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("## Releasing")[2]
    assert [path for path in [*release.VERSION_PATTERNS, "CHANGELOG.md"] if f"`{path}`" not in how] == []


# The citation


def test_the_citation_has_what_the_format_requires() -> None:
    """https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema-guide.md."""
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION.keys() >= {"message", "title", "authors"}
    for reference in CITATION["references"]:
        assert reference.keys() >= {"type", "title", "authors"}
        assert all(author.keys() == {"family-names", "given-names"} for author in reference["authors"])


def test_the_citation_names_the_paper_and_our_licence() -> None:
    (paper,) = CITATION["references"]
    assert paper["doi"] == "10.1109/CVPR.2016.90"
    assert [author["family-names"] for author in paper["authors"]] == ["He", "Zhang", "Ren", "Sun"]
    assert paper["year"] == 2016
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert f'license = "{CITATION["license"]}"' in project
    assert f'description = "{CITATION["abstract"]}"' in project


# What is refused


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a clean commit of the files that name the version, ready to be released."""
    tree = tmp_path / "tree"
    for path in (*release.VERSION_PATTERNS, "CHANGELOG.md"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, tree / path)
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(f"# Changelog\n\n## {VERSION}\n\n- The first.\n")
    git(tree, "init", "--quiet")
    commit(tree)
    return tree


def git(tree: Path, *arguments: str) -> None:
    own = ["-c", "user.name=Tests", "-c", "user.email=tests@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *own, *arguments], cwd=tree, check=True, timeout=60, capture_output=True)


def commit(tree: Path) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message", "Change")


def test_a_clean_tree_whose_changes_are_written_down_is_released(tree: Path) -> None:
    assert release.check(tree) == VERSION


def untracked(tree: Path) -> None:
    (tree / "notes.txt").write_text("x")


def unstaged(tree: Path) -> None:
    (tree / "Dockerfile").write_text((tree / "Dockerfile").read_text() + "# x\n")


def staged(tree: Path) -> None:
    untracked(tree)
    git(tree, "add", "--all")


@pytest.mark.parametrize("change", [untracked, unstaged, staged])
def test_a_tree_with_changes_is_refused(change: Callable[[Path], None], tree: Path) -> None:
    change(tree)
    with pytest.raises(release.Refused, match="changes that are not committed"):
        release.check(tree)


@pytest.mark.parametrize("heading", ["Unreleased", "9.9.9", f"{VERSION}1"])
def test_a_version_that_is_not_the_newest_of_the_changelog_is_refused(heading: str, tree: Path) -> None:
    changelog = tree / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(f"## {VERSION}", f"## {heading}\n\n- New.\n\n## {VERSION}"))
    commit(tree)
    with pytest.raises(release.Refused, match=f"newest heading of CHANGELOG.md is '{heading}'"):
        release.check(tree)


@pytest.mark.parametrize("path", sorted(release.VERSION_PATTERNS.keys() - {"src/resnet_service/__init__.py"}))
@pytest.mark.parametrize("there", ["9.9.9", None])
def test_a_file_with_another_version_or_none_is_refused(path: str, there: str | None, tree: Path) -> None:
    text = (tree / path).read_text()
    assert VERSION in text
    (tree / path).write_text(text.replace(VERSION, there) if there else "")
    commit(tree)
    with pytest.raises(release.Refused, match=f"{path} names version {there or 'nothing'}"):
        release.check(tree)


def test_what_is_no_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(release.Refused, match="git status failed: "):
        release.check(tmp_path)


def test_refusing_is_one_line_and_touches_nothing(tree: Path) -> None:
    (tree / "dist").mkdir()
    (tree / "dist" / "of-before").write_text("x")
    done = subprocess.run(
        [sys.executable, "-m", "tools.release"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tree,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 1
    assert re.fullmatch(r"error: The tree has changes .+\n", done.stderr)
    assert done.stdout == ""
    assert (tree / "dist" / "of-before").exists()


# The archives


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build wheel and source archive; about ten seconds, with the backend that the lock names."""
    return release.build(REPOSITORY, tmp_path_factory.mktemp("release"), TIME)


def contents(path: Path) -> dict[str, bytes]:
    """Return an archive's files; of a source archive, below its one folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    found = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            assert member.isfile(), f"{member.name} is no file"
            folder, _, name = member.name.partition("/")
            assert folder == f"resnet_service-{VERSION}"
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", TIME)
            file = archive.extractfile(member)
            assert file is not None
            found[name] = file.read()
    return found


@pytest.mark.slow
def test_the_names_are_those_of_the_version(built: tuple[Path, Path]) -> None:
    assert [path.name for path in built] == [
        f"resnet_service-{VERSION}-py3-none-any.whl",
        f"resnet_service-{VERSION}.tar.gz",
    ]


@pytest.mark.slow
def test_the_same_tree_gives_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    again = release.build(REPOSITORY, tmp_path, TIME)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


@pytest.mark.slow
def test_pip_makes_the_same_package_of_the_source_archive(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In an environment of its own, with whichever build backend the declared range gives."""
    wheel, source = built
    sbom.pip("wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source))
    made = contents(next(tmp_path.glob("*.whl")))
    ours = contents(wheel)
    information = re.compile(r"\.dist-info/(WHEEL|RECORD)$")  # names the backend's version, and its digest
    assert made.keys() == ours.keys()
    assert [name for name in ours if made[name] != ours[name] and not information.search(name)] == []


@pytest.mark.slow
def test_the_source_archive_holds_our_files_and_no_others(built: tuple[Path, Path]) -> None:
    found = contents(built[1])
    assert found.keys() >= {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    ours = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "src", "labels"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=REPOSITORY,
    ).stdout.split("\0")
    assert {name for name in ours if name} == {name for name in found if name.startswith(("src/", "labels/"))}
    assert all(found[name] == (REPOSITORY / name).read_bytes() for name in found if name != "PKG-INFO")


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_licence_page_and_labels(built: tuple[Path, Path]) -> None:
    wheel, source = map(contents, built)
    package = {name.removeprefix("src/"): data for name, data in source.items() if name.startswith("src/")}
    labels = {
        f"resnet_service/label_sets/{name.removeprefix('labels/')}": data
        for name, data in source.items()
        if name.startswith("labels/")
    }
    assert {name: data for name, data in wheel.items() if ".dist-info/" not in name} == package | labels
    information = f"resnet_service-{VERSION}.dist-info"
    assert wheel[f"{information}/licenses/LICENSE"] == (REPOSITORY / "LICENSE").read_bytes()
    metadata = wheel[f"{information}/METADATA"].decode()
    assert f"\nVersion: {VERSION}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


@pytest.mark.slow
@pytest.mark.parametrize("kind", [0, 1], ids=["wheel", "source"])
def test_nothing_says_on_which_machine_it_was_made(kind: int, built: tuple[Path, Path]) -> None:
    folders = [REPOSITORY, Path.home(), sys.prefix, built[0].parent]
    for name, data in contents(built[kind]).items():
        assert [folder for folder in folders if f"{folder}/".encode() in data] == [], name


@pytest.mark.slow
def test_the_digests_are_checked_by_others_tools(built: tuple[Path, Path], tmp_path: Path) -> None:
    paths = [Path(shutil.copy(path, tmp_path)) for path in built]
    release.write_digests(paths)
    check = ["sha256sum", "--check", "--strict", release.DIGESTS]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout == "".join(f"{path.name}: OK\n" for path in sorted(paths))
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"x")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 1
    digest = hashlib.sha256(paths[1].read_bytes()).hexdigest()
    assert f"{digest}  {paths[1].name}\n" in (tmp_path / release.DIGESTS).read_text()
