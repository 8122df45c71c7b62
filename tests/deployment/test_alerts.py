"""Alerts and dashboard, evaluated by Prometheus' own tool: what fires, what stays silent, and panels that show 0."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers import REPOSITORY

ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana" / "resnet-service.json").read_text())
TARGET = 'job="kubernetes-pods",instance="10.0.0.1:8080"'
READY = {f"resnet_service_ready{{{TARGET}}}": "1x240"}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = shutil.which("promtool")
    if path is None:
        strict = os.environ.get("RESNET_SERVICE_TESTS_STRICT") == "1"
        (pytest.fail if strict else pytest.skip)("there is no promtool (apt-get install prometheus)")
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=60, check=False)


def requests(status: str, values: str, route: str = "/predict") -> dict[str, str]:
    return {f'resnet_service_requests_total{{{TARGET},route="{route}",method="POST",status="{status}"}}': values}


def slow(route: str) -> dict[str, str]:
    name, labels = "resnet_service_request_duration_seconds_bucket", f'{TARGET},route="{route}"'
    return {f'{name}{{{labels},le="9.49"}}': "0+1x240", f'{name}{{{labels},le="+Inf"}}': "0+100x240"}


PROBES = requests("200", "0+7x240", "/health/ready") | requests("200", "0+3x240", "/metrics")
RESTARTS = f"resnet_service_worker_restarts_total{{{TARGET}}}"
STARTS = f"process_start_time_seconds{{{TARGET}}}"
RELOADS = f'resnet_service_reloads_total{{{TARGET},what="model",outcome="%s"}}'
LIMIT = {f"resnet_service_memory_limit_bytes{{{TARGET}}}": "1000x240"}
MEMORY = f"process_resident_memory_bytes{{{TARGET}}}"
OPEN = f"process_open_fds{{{TARGET}}}"
MOST = {f"process_max_fds{{{TARGET}}}": "1000x240"}

# Series with a sample every 15 s, from which the alert must fire, and from which it must not.
CASES: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("Down", {f"up{{{TARGET}}}": "0x240"}, {f"up{{{TARGET}}}": "1x240"} | READY),
    ("Down", {}, READY),
    (
        "Down",
        {f"up{{{TARGET}}}": "1x10 0x200", f"resnet_service_ready{{{TARGET}}}": "1x10"},
        {'up{job="kubernetes-pods",instance="of another service"}': "0x240"} | READY,
    ),
    (
        "Restarting",
        {
            f"up{{{TARGET}}}": "0 1 1 " * 30,
            f"resnet_service_ready{{{TARGET}}}": "_ 1 1 " * 30,
        },
        {f"up{{{TARGET}}}": "1x30 0x3 1x200"} | READY,
    ),
    (
        "Restarting",
        {STARTS: "1x20 2x20 3x20 4x200"} | READY,
        {STARTS: "1x20 2x20 2x200"} | READY,
    ),
    (
        "Restarting",
        {RESTARTS: "0x20 1x20 2x10 3x200"} | READY,
        {RESTARTS: "0x20 1x20 2x200"} | READY,
    ),
    ("Unready", {f"resnet_service_ready{{{TARGET}}}": "0x240"}, READY),
    (
        "Failing",
        requests("200", "0+1.125x240") | requests("500", "0+0.125x240") | PROBES,
        requests("200", "0+1.25x240") | requests("500", "0x40 1x200") | requests("503", "0+7x240", "/health/ready"),
    ),
    ("Overloaded", requests("429", "0+100x240"), requests("200", "0+100x240")),
    ("Slow", slow("/v2/models/{model}/infer"), slow("/predict/batch")),
    ("Slow", slow("/predict"), slow("/metrics")),
    ("ReloadFailed", {RELOADS % "failure": "0x60 1x180"}, {RELOADS % "success": "0x60 1x180"}),
    ("MemoryHigh", {MEMORY: "950x240"} | LIMIT, {MEMORY: "800x240"} | LIMIT),
    ("DescriptorsHigh", {OPEN: "900x240"} | MOST | READY, {OPEN: "900x240"} | MOST),
    ("LogLost", {f"resnet_service_log_lines_lost_total{{{TARGET}}}": "0x60 9x180"}, READY),
]


def verdict(tmp_path: Path, alert: str, series: dict[str, str], minute: int = 20) -> str:
    """Return what promtool says of the expectation that the alert is silent."""
    test = {
        "interval": "15s",
        "input_series": [{"series": name, "values": values.strip()} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": f"ResnetService{alert}", "exp_alerts": []}],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]}))
    done = promtool("test", "rules", path)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("alert", "firing", "silent"), CASES)
def test_alerts_fire_and_stay_silent(
    tmp_path: Path, alert: str, firing: dict[str, str], silent: dict[str, str]
) -> None:
    assert "SUCCESS" in (said := verdict(tmp_path, alert, silent)), said
    said = verdict(tmp_path, alert, firing)
    assert "FAILED" in said, "it does not fire"
    assert f'alertname="ResnetService{alert}"' in said, said


def test_every_alert_has_a_case() -> None:
    assert {f"ResnetService{alert}" for alert, _, _ in CASES} == set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    assert promtool("check", "rules", ALERTS).returncode == 0


def expression(target: dict[str, Any]) -> str:
    return str(target["expr"]).replace("$__rate_interval", "5m").replace("$job", ".+")


def test_panels_of_numbers_show_0_where_there_are_no_series(tmp_path: Path) -> None:
    """Grafana would show "No data" for a counter that nothing has increased yet."""
    targets = [target for panel in DASHBOARD["panels"] if panel["type"] != "table" for target in panel["targets"]]
    assert len(targets) > 15
    samples = [{"labels": "{}", "value": 0}]
    checks = [{"expr": expression(target), "eval_time": "5m", "exp_samples": samples} for target in targets]
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"tests": [{"interval": "15s", "promql_expr_test": checks}]}))
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
