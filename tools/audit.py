"""Look up the packages of the lock files in a database of vulnerabilities; requires a network.

pip-audit skips packages that its database does not know, and succeeds. Here that is a failure: an empty result means
"no known vulnerabilities" only if every package was looked up.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCKS = ("requirements/serve.txt", "requirements/serve-heic.txt", "requirements/dev.txt")
SERVICES = ("pypi", "osv")
# As pip-audit prints them: a dict for each package, with ``vulns`` or the reason why it was skipped.
Findings = list[dict[str, Any]]
PROBE_SECONDS = 15.0
AUDIT_SECONDS = 300.0


def audit(service: str, lock: Path, seconds: float, arguments: list[str]) -> Findings | None:
    """Return pip-audit's findings, one for each package, or ``None`` if it failed."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "5", "--disable-pip", "--require-hashes"]
    try:
        done = subprocess.run(  # noqa: S603 - arguments of this file and the user's own
            [*command, "--requirement", str(lock), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        packages: Findings = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return packages


def main(arguments: list[str], look_up: Callable[[str, Path, float, list[str]], Findings | None] = audit) -> int:
    """Audit the locks; return 0 if the database knows every package and no vulnerability.

    ``arguments`` are passed on to pip-audit; tests replace ``look_up``.
    """
    service = next((service for service in SERVICES if answers(service, arguments, look_up)), None)
    if service is None:
        print(
            "error: no vulnerability database (PyPI's or OSV's) can be reached, so nothing was audited. "
            "Run this on a machine that can reach one.",
            file=sys.stderr,
        )
        return 1
    audited: Findings = []
    for lock in LOCKS:
        audited += look_up(service, Path(lock), AUDIT_SECONDS, arguments) or [{"name": f"all of {lock}"}]
    found = {
        f"{package['name']} {package['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no release yet'}"
        for package in audited
        for vulnerability in package.get("vulns", ())
    }
    for line in sorted(found):
        print(line)
    if left_out := unknown(audited):
        print(f"error: could not be looked up: {', '.join(left_out)}.", file=sys.stderr)
    if not found and not left_out:
        print(f"No known vulnerability in the packages of {' and '.join(LOCKS)} ({service}).")
    return int(bool(found or left_out))


def answers(
    service: str, arguments: list[str], look_up: Callable[[str, Path, float, list[str]], Findings | None]
) -> bool:
    """Return whether a database answers for the first package of the first lock, a quick test of the network."""
    entry = Path(LOCKS[0]).read_text().split("    # via", 1)[0]
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe.txt"
        probe.write_text(entry)
        audited = look_up(service, probe, PROBE_SECONDS, arguments)
    return bool(audited) and not unknown(audited or [])


def unknown(packages: Findings) -> list[str]:
    """Return the names of the packages that the database does not know."""
    return sorted({package["name"] for package in packages if "vulns" not in package})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
