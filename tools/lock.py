"""Write the lock files in ``requirements/``: every package for serving and development, with the hashes of its files.

One resolution covers every platform and every Python that the project supports. Pinned versions stay if they still fit;
``--upgrade`` takes the newest of all. The files contain no index URL: the installing machine chooses the index, and the
hashes fix the contents.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

# Without PyTorch: its builds with and without CUDA have different files, and the machine chooses the build.
LOCKS: dict[str, list[str]] = {
    "requirements/serve.txt": [],
    "requirements/serve-heic.txt": ["--extra", "heic", "--constraint", "requirements/serve.txt"],
    "requirements/dev.txt": [
        *("--extra", "plot", "--extra", "heic", "--extra", "dev"),
        *("--constraint", "requirements/serve.txt"),
    ],
}


def main() -> None:
    """Compile each lock; if uv fails, exit with its code."""
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
