"""The command ``python -m benchmarks``: prepares, measures and reports."""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType

from benchmarks import accuracy, environments, machine, report
from benchmarks.catalogue import Catalogue, Server
from benchmarks.files import Files
from benchmarks.measure import Harness, Plan
from benchmarks.paths import CACHE, REPOSITORY
from benchmarks.results import Results, Subject

_PROGRAMS = {"wrk": "wrk", "java": "default-jre-headless"}  # and the Debian packages that provide them
_SMOKE = Plan(rounds=1, seconds=2, connections=(1, 16), starts=1, start_load_seconds=1, large_seconds=1)
_TUNING = Plan(rounds=3, seconds=3, connections=(1, 16), starts=0, large_seconds=0)


def main() -> None:
    """Run the benchmarks, or draw the report of earlier results."""
    args = _arguments()
    if args.report:
        _report(Results.read(args.report), args.report.parent)
        return
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        sys.exit(f"Programs are missing; install them: apt-get install {' '.join(missing)}")
    # The servers must not outlive this program, so SIGTERM unwinds the stack as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    files, interpreters = Files(), environments.make()
    _prepare(interpreters, args.checkpoint)
    groups = _chosen(Catalogue(interpreters, files), tuning=args.tuning, only=args.only)
    servers = [server for group in groups for server in group]
    plan, output = _plan(args), _output(args)
    results = _empty_results(servers, plan, files, interpreters, weights="given" if args.checkpoint else "random")
    try:
        Harness(groups, files, plan, results).run(_say)
        output.mkdir(parents=True, exist_ok=True)
        results.write(output / "results.json")
        if not (args.smoke or args.only or args.tuning):
            _measure_accuracy(results, files)
            results.write(output / "results.json")
    except KeyboardInterrupt:
        sys.exit("Interrupted.")
    _report(results, output)


def _empty_results(
    servers: Sequence[Server], plan: Plan, files: Files, interpreters: environments.Interpreters, weights: str
) -> Results:
    others = machine.others_share()
    if others > report.IDLE_PERCENT:
        _say(f"Other programs use {others} % of the processor; the results will be inaccurate.")
    _say(f"{len(servers)} servers, about {plan.minutes(len(servers)):.0f} minutes")
    sizes: dict[str, int] = {name: path.stat().st_size for name, path in files.exported.items()}
    return Results(
        date=time.strftime("%Y-%m-%d"),
        machine=machine.describe(),
        versions=machine.versions(interpreters),
        settings={**plan._asdict(), "weights": weights, "others_percent": others},
        subjects=[Subject(one.name, one.title, one.family, one.about) for one in servers],
        file_bytes={**sizes, "checkpoint": files.checkpoint.stat().st_size},
    )


def _measure_accuracy(results: Results, files: Files) -> None:
    _say("accuracy on Fashion-MNIST")
    try:
        results.top1 = accuracy.measure(files)
    except subprocess.SubprocessError as error:
        results.failures["accuracy"] = str(error)


def _arguments() -> argparse.Namespace:
    plan = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare this service with others.")
    parser.add_argument("--only", metavar="NAMES", help="names of servers, separated by commas; * is a wildcard")
    parser.add_argument("--rounds", type=int, help=f"number of rounds; default {plan.rounds}")
    parser.add_argument("--seconds", type=int, help=f"length of a measurement; default {plan.seconds}")
    parser.add_argument(
        "--connections", help="numbers, separated by commas; default " + ",".join(map(str, plan.connections))
    )
    parser.add_argument("--starts", type=int, help=f"starts of each server; default {plan.starts}")
    parser.add_argument("--output", type=Path, help="folder for the results; default docs/benchmarks")
    parser.add_argument("--checkpoint", type=Path, help="a ResNet-18 with 1000 classes; default: random weights")
    parser.add_argument("--smoke", action="store_true", help="only check that everything works; writes to the cache")
    parser.add_argument("--tuning", action="store_true", help="compare settings of the other servers instead")
    parser.add_argument("--report", type=Path, metavar="RESULTS", help="only draw tables and plots from a results.json")
    return parser.parse_args()


def _output(args: argparse.Namespace) -> Path:
    """Return the folder for the results; a partial run must not overwrite those of a whole run."""
    if args.output:
        return Path(args.output)
    if args.smoke or args.only:
        return CACHE / "results"
    return REPOSITORY / "docs" / "benchmarks" / ("tuning" if args.tuning else "")


def _plan(args: argparse.Namespace) -> Plan:
    plan = _SMOKE if args.smoke else _TUNING if args.tuning else Plan()
    given = {name: getattr(args, name) for name in ("rounds", "seconds", "starts") if getattr(args, name) is not None}
    if args.connections:
        given["connections"] = tuple(int(number) for number in args.connections.split(","))
    return plan._replace(**given)


def _prepare(interpreters: environments.Interpreters, checkpoint: Path | None) -> None:
    given = ["--checkpoint", str(checkpoint)] if checkpoint else []
    command = [sys.executable, "-m", "benchmarks.prepare", "--torch-python", str(interpreters.torch), *given]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def _chosen(catalogue: Catalogue, *, tuning: bool, only: str | None) -> list[list[Server]]:
    groups = catalogue.tuning() if tuning else [catalogue.main()]
    wanted = only.split(",") if only else ["*"]
    chosen = [[one for one in group if any(fnmatch(one.name, pattern) for pattern in wanted)] for group in groups]
    if not any(chosen):
        sys.exit(f"There is no such server; choose from: {' '.join(one.name for group in groups for one in group)}")
    return [group for group in chosen if group]


def _report(results: Results, folder: Path) -> None:
    from benchmarks import plots  # imported after the measurements, to keep matplotlib out of them

    plots.draw(results, folder)
    (folder / "README.md").write_text(report.page(results))
    print(f"Wrote {folder}")


def _say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
