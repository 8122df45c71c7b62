"""Write ``requirements/``: every package that serving and development need, with the hashes of all its files.

One resolution holds for every platform and every Python that the project supports. What is pinned already stays as it
is, as far as it still fits; ``--upgrade`` takes the newest of everything. No address gets into the files: where
packages come from is a choice of the machine that installs, what they are is not.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

# Without PyTorch: whether its build carries CUDA is a choice of the machine, and the builds have different files.
LOCKS: dict[str, list[str]] = {
    "requirements/serve.txt": [],
    "requirements/dev.txt": ["--extra", "plot", "--extra", "dev", "--constraint", "requirements/serve.txt"],
}


def main() -> None:
    """Compile each lock, or end with uv's own message and exit code."""
    floor = tomllib.loads(Path("pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    for path, arguments in LOCKS.items():
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", *arguments]
        command += ["--universal", "--python-version", floor, "--generate-hashes", "--no-emit-index-url"]
        command += ["--custom-compile-command", "make lock", "--output-file", path, *sys.argv[1:]]
        code = subprocess.run(command, check=False).returncode  # noqa: S603 - arguments of this file and the user's own
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
