"""Load on a service: the arithmetic, what is counted, how it ends, and what the command line shows of it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer.cli import bench, main
from gpu_infer.client.messages import Failure, Response
from gpu_infer.errors import AuthenticationError, ScoringTimeoutError, UnsupportedError
from gpu_infer.load import Level, LoadReport, item_for, measure, percentile, replicas_for, replicas_of
from gpu_infer.load.senders import reason
from gpu_infer.samples import made_up
from gpu_infer.service import Service

OURS = {"x-gpu-infer-device": "cpu", "x-gpu-infer-batch": "4", "x-gpu-infer-queue-ms": "1.5"}
KEY = "a-key-nobody-may-see"

pytestmark = pytest.mark.usefixtures("state")

Reply = Callable[[int], tuple[int, dict[str, str]]]
"""From the number of a request, from 0, to status and headers of its answer."""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, state: Path) -> str:
    """A service that doubles ``x`` float32 ``[N, 4]``, by name."""
    path = save_elementwise(tmp_path_factory.mktemp("model") / "tiny.onnx")
    gpu_infer.deploy(path, name="loaded", keep=True)
    return "loaded"


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    """Makes services that answer as the test says, from a small server on 127.0.0.1."""
    running: list[ThreadingHTTPServer] = []
    closing = threading.Event()

    def start(reply: Reply, *, key: str | None = None, hang: Callable[[int], bool] = lambda _: False) -> Service:
        count = iter(range(1 << 40))
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    number = next(count)
                if hang(number):
                    closing.wait(30)
                status, headers = reply(number)
                if key is not None and self.headers["Authorization"] != f"Bearer {key}":
                    status = 401
                body = b"[1]"
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has there
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever measures leaves when the time is over."""

        server = Server(("127.0.0.1", 0), Handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/score"
        return Service("made", "Healthy", uri, "local", _credential=None if key is None else lambda: key)

    yield start
    closing.set()
    for server in running:
        server.shutdown()
        server.server_close()


def always(status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return lambda _: (status, OURS if headers is None else headers)


def quick(service: Service, **options: Any) -> LoadReport:
    return measure(service, b"abc", **{"concurrency": (1, 4), "seconds": 0.3, "warm_up": 0.1, **options})


def level(concurrency: int, rate: float, p50: float, p99: float, **more: Any) -> Level:
    figures = {"seconds": 5.0, "results": 1000, "p90_ms": (p50 + p99) / 2, "max_ms": 2 * p99}
    return Level(concurrency=concurrency, rate=rate, p50_ms=p50, p99_ms=p99, **{**figures, **more})


def report(*levels: Level, **more: Any) -> LoadReport:
    return LoadReport(service="made", levels=levels, **more)


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        (list(range(1, 101)), 0.5, 50),
        (list(range(1, 101)), 0.9, 90),
        (list(range(1, 101)), 0.99, 99),
        (list(range(1, 1001)), 0.99, 990),
        (list(range(1, 101)), 1.0, 100),
        (list(range(1, 101)), 0.0, 1),
    ],
)
def test_percentiles(values: list[float], part: float, expected: float):
    assert percentile(values, part) == expected


def test_the_sustained_level_is_the_quickest_of_those_near_the_highest_rate():
    levels = (level(1, 100, 10, 20), level(4, 390, 10, 25), level(16, 400, 40, 90), level(64, 300, 200, 400))
    assert report(*levels).sustained is levels[1]
    assert report(*levels, p99_ms=22).sustained is levels[0]
    assert report(*levels, p99_ms=19).sustained is None
    assert report().sustained is None


def test_a_level_with_errors_or_a_long_tail_is_not_sustained():
    good, long = level(1, 100, 10, 20), level(4, 400, 20, 61)
    failing = level(4, 400, 10, 20, errors={"503 overloaded": 1})
    assert report(good, failing).sustained is good
    assert report(good, long).sustained is good
    assert report(good, long, p99_ms=61).sustained is long
    nearly_idle = level(1, 5000, 0.1, 49.9)
    assert nearly_idle.acceptable()
    assert not nearly_idle.acceptable(49)


@pytest.mark.parametrize(
    ("rate", "replicas", "headroom", "expected"),
    [(500, 1, 0.7, 8), (70, 1, 0.7, 1), (70.1, 1, 0.7, 2), (700, 1, 0.7, 10), (500, 2, 0.7, 15), (1000, 1, 1.0, 10)],
)
def test_replicas_for_a_rate(rate: float, replicas: int, headroom: float, expected: int):
    measured = report(level(4, 100, 10, 20), replicas=replicas)
    assert replicas_for(measured, rate, headroom=headroom) == expected


def test_replicas_are_not_guessed():
    assert replicas_for(report(level(4, 100, 100, 900)), 500) is None
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="rate"):
            replicas_for(report(level(4, 100, 10, 20)), rate)
    with pytest.raises(ValueError, match="headroom"):
        replicas_for(report(level(4, 100, 10, 20)), 5, headroom=0)


def test_how_many_replicas_a_service_has():
    def azure(**raw: Any) -> Service:
        return Service("a", "Healthy", "https://a/score", "aks", raw=SimpleNamespace(**raw))

    assert replicas_of(Service("a", "Healthy", "http://127.0.0.1:1/score", "local")) == 1
    assert replicas_of(azure(num_replicas=3, autoscaler=None)) == 3
    assert replicas_of(azure(num_replicas=None)) is None
    assert replicas_of(azure(num_replicas=1, autoscaler=SimpleNamespace(autoscale_enabled=True))) is None


def test_the_notes_say_what_the_figures_do_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert report(level(1, 100, 10, 20)).notes == ()
    bound = report(level(1, 100, 10, 20), level(4, 900, 10, 20, client_cores=0.97), here=True).notes
    assert len(bound) == 1
    assert bound[0].startswith("This process was the limit at 4 at a time: it took 97% of a core, and has no more.")
    (shared,) = report(level(1, 100, 10, 20, client_cores=0.3), here=True).notes
    assert shared.startswith("The service runs on this machine too, and sending took up to 30% of one of its 2 cores")
    assert report(level(1, 100, 10, 20, client_cores=0.3)).notes == ()
    (few,) = report(level(1, 100, 10, 20, results=99), level(4, 10, 10, 20, results=9)).notes
    assert few.startswith("Fewer than 100 results at 1 and 4 at a time")
    (rising,) = report(level(1, 100, 10, 20), level(4, 300, 10, 20)).notes
    assert rising.startswith("The rate still rose at 4 at a time")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Response(503, {"x-gpu-infer-error": "overloaded"}), "503 overloaded"),
        (Response(502, {}), "502 Bad Gateway"),
        (Response(599, {}), "599"),
        (Failure("read_timeout", ""), "no answer in time"),
        (Failure("broken", ""), "connection broken"),
    ],
)
def test_reasons(outcome: Any, words: str):
    assert reason(outcome) == words


# --- measuring --------------------------------------------------------------------------------------------------------


def test_what_a_service_does_is_measured_level_by_level(serve: Callable[..., Service]):
    ticks: list[tuple[float, float]] = []
    measured = quick(serve(always()), on_tick=lambda done, total: ticks.append((done, total)))
    assert [one.concurrency for one in measured.levels] == [1, 4]
    for one in measured.levels:
        assert one.results > 0
        assert one.rate > 0
        assert 0 < one.p50_ms <= one.p90_ms <= one.p99_ms <= one.max_ms
        assert (one.batch, one.queue_ms) == (4, 1.5)
        assert one.errors == {}
        assert one.client_cores > 0
    assert (measured.service, measured.device, measured.here, measured.interrupted) == ("made", "cpu", True, False)
    assert json.loads(json.dumps(measured.to_dict()))["levels"][0]["concurrency"] == 1
    done = [one for one, _ in ticks]
    assert done == sorted(done)
    assert ticks[0][1] == pytest.approx(0.8)
    assert max(done) <= 0.8 + 1e-6


def test_a_service_of_others_says_nothing_of_batches(serve: Callable[..., Service]):
    (one,) = quick(serve(always(headers={"x-gpu-infer-queue-ms": "much"})), concurrency=[1]).levels
    assert (one.batch, one.queue_ms) == (None, None)


def test_errors_are_counted_by_kind_and_the_rest_goes_on(serve: Callable[..., Service]):
    refused = {"x-gpu-infer-error": "overloaded", "Retry-After": "0"}

    def reply(number: int) -> tuple[int, dict[str, str]]:
        if number and number % 5 == 0:
            return 503, refused
        return (504, {"x-gpu-infer-error": "deadline"}) if number % 5 == 1 and number > 5 else (200, OURS)

    measured = quick(serve(reply), concurrency=[4], seconds=0.8)
    (one,) = measured.levels
    assert set(one.errors) == {"503 overloaded", "504 deadline"}
    assert all(count > 0 for count in one.errors.values())
    assert one.results > 0
    assert measured.sustained is None


def test_after_a_level_without_results_no_other_is_tried(serve: Callable[..., Service]):
    def reply(number: int) -> tuple[int, dict[str, str]]:
        return (500, {}) if number else (200, OURS)

    (one,) = quick(serve(reply)).levels
    assert one.concurrency == 1
    assert one.results == 0
    assert set(one.errors) == {"500 Internal Server Error"}


def test_a_service_that_hangs_ends_by_the_time_out(serve: Callable[..., Service]):
    (one,) = quick(serve(always(), hang=lambda number: number > 0), timeout=0.3, seconds=0.5).levels
    assert set(one.errors) == {"no answer in time"}
    with pytest.raises(ScoringTimeoutError):
        quick(serve(always(), hang=lambda _: True), timeout=0.3)


def test_a_slow_service_has_a_rate_though_none_of_its_answers_falls_into_the_time(serve: Callable[..., Service]):
    def slow(_: int) -> tuple[int, dict[str, str]]:
        time.sleep(0.4)
        return 200, OURS

    (one,) = quick(serve(slow), concurrency=[2], seconds=0.05, warm_up=0.0).levels
    assert one.results == 2
    assert 0 < one.rate < 2 / 0.4


def test_the_key_goes_along_and_stands_nowhere(serve: Callable[..., Service]):
    service = serve(always(), key=KEY)
    measured = quick(service)
    assert all(one.results and not one.errors for one in measured.levels)
    assert KEY not in repr(measured) + json.dumps(measured.to_dict())
    with pytest.raises(AuthenticationError) as caught:
        quick(Service("made", "Healthy", service.scoring_uri, "aks", _credential=lambda: "another-key"))
    assert "another-key" not in str(caught.value)


def test_ctrl_c_ends_it_and_what_there_is_comes_back(serve: Callable[..., Service]):
    service = serve(always())

    def press(done: float, _: float) -> None:
        if done > 0.55:
            raise KeyboardInterrupt

    measured = quick(service, concurrency=(1, 4, 8), on_tick=press)
    assert measured.interrupted
    assert [one.concurrency for one in measured.levels] == [1, 4]
    assert measured.levels[1].results > 0
    assert measured.levels[1].errors == {}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("gpu-infer-load")]

    def at_once(done: float, _: float) -> None:
        raise KeyboardInterrupt

    assert quick(service, on_tick=at_once).levels == ()


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": []},
        {"concurrency": [0]},
        {"concurrency": [257]},
        {"seconds": 0},
        {"seconds": float("inf")},
        {"warm_up": -1},
        {"replicas": 0},
        {"p99_ms": 0},
        {"timeout": 0},
    ],
)
def test_numbers_that_cannot_be(serve: Callable[..., Service], options: dict[str, Any]):
    with pytest.raises(ValueError, match="must be"):
        quick(serve(always()), **options)


# --- items ------------------------------------------------------------------------------------------------------------


def test_items_are_made_up_from_what_a_service_takes():
    def takes(shape: Any, dtype: str = "float32", ndim: int | None = None, preprocess: str = "") -> dict[str, Any]:
        return {"input": {"dtype": dtype, "shape": shape, "item_ndim": ndim}, "preprocess": preprocess}

    assert made_up(takes([None, 4])).shape == (4,)
    assert made_up(takes([None, None, 3], "int64", 2)).shape == (1, 3)
    assert made_up(takes([None, 3], "int64")).dtype == np.int64
    assert made_up(takes([None], "string"))[:2] == b"\xff\xd8"
    assert made_up(takes([None, 3, 224, 224], preprocess="image:224x224"))[:2] == b"\xff\xd8"
    with pytest.raises(ValueError, match="does not say what shape"):
        made_up(takes(None))


def test_a_script_of_the_users_own_needs_an_input():
    service = Service("own", "Healthy", "http://127.0.0.1:9/score", "local", _own_script=True)
    with pytest.raises(UnsupportedError, match="No item can be made up for service 'own'.* Give one"):
        item_for(service)


# --- the command line -------------------------------------------------------------------------------------------------


def run(*arguments: str, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr()


def test_bench_shows_figures_picture_and_words(real: str, capsys: pytest.CaptureFixture[str]):
    arguments = ("bench", real, "--concurrency", "1,4", "--seconds", "0.5", "--p99-ms", "5000")
    out, err = run(*arguments, "--rate", "1000000", capsys=capsys)
    lines = out.splitlines()
    header = "AT ONCE RESULTS/S P50 MS P90 MS P99 MS MAX MS BATCH QUEUE MS ERRORS"
    assert " ".join(lines[0].split()) == header
    assert [line.split()[0] for line in lines[1:3]] == ["1", "4"]
    assert lines[1].split()[-1] == "0"
    assert "█ p50  ▓ p90  ▒ p99" in out
    text = " ".join(out.split())
    assert f"{real} sustains " in text
    assert "1,000,000 requests per second need " in text
    assert "replicas: 70% of " in text
    assert f"{real}: 4 at a time ok" in err
    assert err.splitlines()[-1] == f"Next: gpu-infer stats {real}   the batches that it made"


def test_bench_json_and_an_input_of_the_users(real: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    np.save(tmp_path / "x.npy", np.zeros((2, 4), np.float32))
    arguments = ("bench", real, str(tmp_path / "x.npy"), "--concurrency", "2", "--seconds", "0.3", "--json")
    out, err = run(*arguments, "--rate", "1", "--p99-ms", "5000", capsys=capsys)
    told = json.loads(out)
    assert "Next:" not in err
    assert told["service"] == real
    assert told["rate"] == 1
    assert told["replicas_needed"] == 1
    assert told["levels"][0]["batch"] >= 2
    assert told["sustained"]["concurrency"] == 2
    assert json.loads(run(*arguments, capsys=capsys)[0])["replicas_needed"] is None


def test_bench_says_what_was_not_acceptable(real: str, capsys: pytest.CaptureFixture[str]):
    arguments = ("bench", real, "--concurrency", "1", "--seconds", "0.3", "--p99-ms", "0.000001")
    out, err = run(*arguments, "--rate", "5", capsys=capsys)
    assert "No level is sustained: each had errors, or a p99 above 0.00 ms." in " ".join(out.split())
    assert "need" not in out
    assert f"Next: gpu-infer bench {real} --p99-ms " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench",), "Missing argument"),
        (("bench", "x", "--concurrency", "1,many"), "'1,many' is no list of numbers from 1 to 256"),
        (("bench", "x", "--concurrency", "0"), "is no list of numbers"),
        (("bench", "x", "--seconds", "0"), "--seconds"),
        (("bench", "x", "--rate", "0"), "0 is no number above 0."),
        (("bench", "x", "--rate", "inf"), "inf is no number above 0."),
        (("bench", "x", "--p99-ms", "-3"), "-3 is no number above 0."),
        (("bench", "loaded", "no-such-file.npy"), "there is no file no-such-file.npy."),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    real: str, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    out, err = run(*arguments, code=2, capsys=capsys)
    assert out == ""
    assert message in " ".join(err.replace("│", " ").split())


def test_what_is_wrong_with_the_item_is_said_before_any_load(
    real: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    np.save(tmp_path / "x.npy", np.zeros(3, np.float32))
    out, err = run("bench", real, str(tmp_path / "x.npy"), code=1, capsys=capsys)
    assert out == ""
    assert "Error: expected float32 [4] or [N, 4], got float32 [3]" in err
    assert "Error: There is no local service 'nobody'." in run("bench", "nobody", code=1, capsys=capsys)[1]


def test_ctrl_c_shows_what_was_measured(real: str):
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gpu_infer.cli", "bench", real, "--concurrency", "1", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=follower,
        # A shell that runs the tests in the background has them ignore SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
    ) as process:
        os.close(follower)
        shown = b""
        while b" 3 of 61" not in shown:
            shown += os.read(leader, 1 << 16)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        shown += os.read(leader, 1 << 20)
        os.close(leader)
    assert process.returncode == 130
    assert out.decode().splitlines()[1].split()[0] == "1"
    assert shown.decode().split()[-1] == "Interrupted."
    assert b"Traceback" not in shown


def test_bars_end_where_the_percentiles_are(capsys: pytest.CaptureFixture[str]):
    levels = (level(1, 100, 10, 30, p90_ms=20), level(64, 400, 1, 1, p90_ms=1))
    bench._show(report(*levels), None, None)
    out = capsys.readouterr().out
    bars = [line.split()[1] for line in out.splitlines() if "█" in line and "p50" not in line]
    assert bars == ["█" * 20 + "▓" * 20 + "▒" * 20, "██"]


def test_a_narrow_terminal_leaves_columns_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    one = level(64, 12345, 10, 30, batch=3.0, queue_ms=1.0)
    for width in (80, 60, 44):
        monkeypatch.setenv("COLUMNS", str(width))
        bench._show(report(one), None, None)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split()[-1] == "ERRORS"
        assert ("QUEUE MS" in lines[0]) is (width == 80)


def test_errors_and_the_limit_of_the_client_are_told(capsys: pytest.CaptureFixture[str]):
    fine = level(4, 200, 10, 20, client_cores=0.9)
    failing = level(16, 400, 10, 20, errors={"503 overloaded": 1200, "504 deadline": 1})
    bench._show(report(fine, failing, replicas=2), 500, 8)
    text = " ".join(capsys.readouterr().out.split())
    assert "Errors at 16 at a time: 1,200 x 503 overloaded, 1 x 504 deadline" in text
    assert "made sustains at least 200 requests per second on 2 replicas, 100 each: with 4 at a time" in text
    assert "The 400 with 16 at a time do not count: there were errors." in text
    assert "500 requests per second need at most 8 replicas" in text
    assert "Note: This process was the limit at 4 at a time" in text


def test_the_next_command_fits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GPU_INFER_WORKSPACE", raising=False)
    service = Service("made", "Healthy", "http://127.0.0.1:9/score", "aks", model="resnet50:1")
    good, failing = report(level(1, 100, 10, 20)), report(level(1, 100, 10, 20, errors={"500": 1}))
    assert bench._next(service, good, 4, "config.json")[0] == "gpu-infer plan resnet50:1 --replicas 4 -w config.json"
    assert bench._next(service, good, None, "config.json")[0] == "gpu-infer stats made -w config.json"
    assert bench._next(service, failing, None, None)[0] == "gpu-infer logs made"
    assert bench._next(service, report(level(1, 100, 10, 200)), 3, None)[0] == "gpu-infer bench made --p99-ms 201"
