"""What the benchmarks compute from measurements; the measuring itself is no test's work."""

import json
from pathlib import Path

import pytest

from benchmarks import bars, client, load, report, scale
from benchmarks.paths import REPOSITORY
from benchmarks.results import Ceiling, ImageKind, Measurement, Results, Subject, Visit, middle, ratio


def measured(
    server: str, per_second: float, p50: float = 10, turn: int = 0, connections: int = 16, errors: int = 0
) -> Measurement:
    kind: ImageKind = "photographs"
    return Measurement(server, kind, connections, turn, per_second, p50, 2 * p50, 3 * p50, 100, errors)


def results(*measurements: Measurement) -> Results:
    names = dict.fromkeys(one.server for one in measurements)
    return Results(
        date="2025-01-01",
        machine={"cores": "2", "processor": "P", "instructions": "I", "memory": "M", "system": "S"},
        versions={"python": "3"},
        settings={"rounds": 1, "seconds": 1, "connections": [1, 16], "weights": "random", "others_percent": 0.0},
        subjects=[Subject(name, name.title(), "ours", "") for name in names],
        measurements=list(measurements),
    )


def bar(found: Results, name: str) -> bars.Bar:
    return next(one for one in bars.evaluate(found) if one.name.startswith(name))


def test_a_result_of_the_load_generator_is_read() -> None:
    output = (
        "Running 2s test\n"
        '{"requests": 300, "microseconds": 2000000, "p50": 6500.0, "p95": 9000, "p99": 12000, "errors": 1}\n'
    )
    assert load.parse(output) == load.Load(150, 6.5, 9, 12, 300, 1)


@pytest.mark.parametrize("output", ["", "unable to connect", '{"requests": 0, "microseconds": 2000000}'])
def test_a_run_without_answers_is_no_result(output: str) -> None:
    with pytest.raises(RuntimeError):
        load.parse(output)


def test_ratios_pair_the_rounds() -> None:
    # Round 1 was slow for both: each round's ratio is 4, though the medians' is not.
    found = ratio({0: 400, 1: 40, 2: 200}, {0: 100, 1: 10, 2: 50})
    assert found is not None
    assert (found.median, found.lowest, found.highest) == (4, 4, 4)


def test_rounds_that_only_one_has_make_no_ratio() -> None:
    assert ratio({0: 1.0}, {1: 1.0}) is None
    assert middle({}) is None


def test_a_measurement_with_errors_does_not_count() -> None:
    found = results(measured("flask", 50), measured("flask", 900, turn=1, errors=1))
    assert found.loads("flask", "per_second", 16, "photographs") == {0: 50}
    assert found.errors("flask") == 1


def test_throughput_is_compared_with_the_best_peer() -> None:
    found = bar(results(measured("int8", 240), measured("flask", 40), measured("litserve", 60)), "requests/s, 16")
    assert (found.value, found.against, found.reached) == (4, "litserve", False)
    assert found.missing == ("bentoml", "torchserve")


def test_a_latency_is_a_fraction_of_the_others() -> None:
    found = bar(
        results(measured("int8", 1, p50=5, connections=1), measured("flask", 1, p50=25, connections=1)),
        "median latency, 1",
    )
    assert (found.value, found.reached) == (5, True)


def test_the_share_of_the_ceiling_is_taken_round_by_round() -> None:
    found = results(measured("int8", 90), measured("int8", 180, turn=1))
    found.ceilings = [Ceiling("int8", 0, 100), Ceiling("int8", 1, 200)]
    share = bar(found, "share of the no-HTTP ceiling")
    assert share.value == pytest.approx(0.9)
    assert share.reached


def test_memory_and_start_come_from_visits() -> None:
    found = results()
    found.visits = [Visit("int8", 0, 0.5, 180_000_000, 190_000_000), Visit("flask", 0, 2.5, 540_000_000, 600_000_000)]
    memory, leanest = (one for one in bars.evaluate(found) if one.name.startswith("resident memory"))
    assert (memory.value, memory.reached) == (180, True)
    assert (leanest.value, leanest.against, leanest.reached) == (3, "flask", False)
    assert bar(found, "process start").reached


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert {one.reached for one in bars.evaluate(results())} == {None}


@pytest.mark.parametrize(("lost", "reached"), [(0.25, True), (0.5, False), (-0.5, True)])
def test_lost_accuracy_is_in_points(lost: float, reached: bool) -> None:
    found = results()
    found.top1 = {"fp32": 93.75, "int8": 93.75 - lost}
    assert bar(found, "INT8 top-1").reached is reached


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = results(measured("int8", 240), measured("flask", 40))
    found.ceilings = [Ceiling("int8", 0, 250)]
    found.visits = [Visit("int8", 0, 0.5, 1, 2)]
    found.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == found


def test_the_page_has_every_bar_and_server() -> None:
    found = results(measured("int8", 240), measured("flask", 40, errors=3))
    page = report.page(found)
    assert all(one.name in page for one in bars.evaluate(found))
    assert "Flask (3 errors" in page


@pytest.mark.parametrize(
    "body",
    [
        b'{"predictions": [{"class_id": 7, "score": 0.6}, {"class_id": 2, "score": 0.3}]}',
        b'[{"predictions": [{"class_id": 7, "score": 0.6}, {"class_id": 2, "score": 0.3}]}]',
        b'{"2": 0.3, "7": 0.6}',
    ],
)
def test_answers_of_every_form_are_read(body: bytes) -> None:
    assert client.classes(body) == [7, 2]


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b"7", b'{"predictions": [{}]}'])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="known form"):
        client.classes(body)


def test_the_page_about_scale_shows_what_its_command_prints() -> None:
    figures = json.loads(scale.FIGURES.read_text())
    page = (REPOSITORY / "docs" / "scale.md").read_text()
    assert scale.around(figures) in page
    assert scale.table(figures) in page
    assert scale.machines(Results.read(scale.SERVED)) in page
    overhead = (REPOSITORY / "docs" / "benchmarks" / "overhead.md").read_text()
    assert f"| this service, form | {scale.HTTP_MS} |" in overhead


def test_a_bound_is_lifted_by_what_it_depends_on() -> None:
    figures = json.loads(scale.FIGURES.read_text())
    one, ten = ({bound.name: bound.per_second for bound in scale.bounds(figures, nodes)} for nodes in (1, 10))
    assert ten[scale.CPU] == pytest.approx(10 * one[scale.CPU])
    assert ten[scale.LINKS] == pytest.approx(10 * one[scale.LINKS])
    assert ten[scale.STORE] == one[scale.STORE]
    slower = figures | {"ray_task_ms": 10 * figures["ray_task_ms"]}
    assert dict(scale.bounds(slower, 10))[scale.DRIVER] == pytest.approx(ten[scale.DRIVER] / 10)
