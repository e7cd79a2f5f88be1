"""``gpu-infer score`` on folders, arrays and tables: what is read, what is written, and how it goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx_models import save_elementwise

import gpu_infer
from gpu_infer.cli import main, results, score_run
from gpu_infer.cli.score_inputs import Choice, Label, Row, Takes, find, source_of
from gpu_infer.cli.score_outputs import json_line, sink_for
from gpu_infer.client import ClassScores
from gpu_infer.errors import AuthenticationError, BadInputError, ScoringConnectionError

pytestmark = pytest.mark.usefixtures("state")

ROWS = np.arange(400, dtype=np.float32).reshape(100, 4)
DOUBLED = 2 * ROWS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, state: Path) -> gpu_infer.Service:
    """Doubles ``x`` float32 ``[N, 4]``, and has labels."""
    path = save_elementwise(tmp_path_factory.mktemp("model") / "tiny.onnx")
    return gpu_infer.deploy(path, name="rows", keep=True, labels=["cat", "dog", "lynx", "owl"])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["score", *arguments]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out, " ".join(err.replace("│", " ").split())


def write_csv(name: str, rows: Any, header: str = "a,b,c,d") -> None:
    body = "\n".join(",".join(map(str, row)) for row in rows)
    Path(name).write_text(f"{header}\n{body}\n" if header else f"{body}\n")


def jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_the_rows_of_an_array_are_items_where_the_service_says_so(service, capsys):
    np.save("x.npy", ROWS)
    out, err = run("rows", "x.npy", capsys=capsys)
    assert out.splitlines()[1] == "x.npy:1   8  10  12  14"
    assert len(out.splitlines()) == results.ROWS
    assert "... and 80 more; --out FILE keeps all, --json prints all 100 items in" in err
    assert err.endswith("Next: gpu-infer stats rows")
    told = json.loads(run("rows", "x.npy", "--json", capsys=capsys)[0])
    assert told[99] == {"file": "x.npy", "row": 99, "result": DOUBLED[99].tolist()}
    np.savez("x.npz", x=ROWS[:2], y=ROWS[2:])
    told = json.loads(run("rows", "x.npz", "--column", "y", "--json", capsys=capsys)[0])
    assert told[0] == {"file": "x.npz", "row": 0, "result": DOUBLED[2].tolist()}
    assert "holds the arrays x, y: choose one with --column NAME" in run("rows", "x.npz", code=1, capsys=capsys)[1]


def test_rows_are_read_some_at_a_time(monkeypatch):
    np.save("x.npy", np.asfortranarray(ROWS))
    monkeypatch.setattr("gpu_infer.cli.score_inputs.BLOCK_BYTES", 7 * ROWS[0].nbytes)
    source = source_of("x.npy", Choice(), lines=False, rows=True, takes=Takes())
    found = list(source.read())
    assert source.count == len(found) == 100
    assert [label.row for label, _ in found] == list(range(100))
    np.testing.assert_array_equal([row for _, row in found], ROWS)


def test_a_table_is_scored_by_its_columns_with_numbers(service, capsys):
    write_csv("x.csv", [[f"row {at}", *row] for at, row in enumerate(ROWS.tolist())], "id,a,b,c,d")
    run("rows", "x.csv", "--out", "y.npy", capsys=capsys)
    np.testing.assert_array_equal(np.load("y.npy"), DOUBLED)
    pq.write_table(pa.table({"n": range(100), **{name: ROWS[:, at] for at, name in enumerate("abcd")}}), "x.parquet")
    run("rows", "x.parquet", "--without", "n", "--out", "z.npy", capsys=capsys)
    np.testing.assert_array_equal(np.load("z.npy"), DOUBLED)
    run("rows", "x.parquet", "--column", "d", "--column", "[abc]", "--out", "z.npy", capsys=capsys)
    np.testing.assert_array_equal(np.load("z.npy"), DOUBLED[:, [3, 0, 1, 2]])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_of_lists_is_an_item_each(service, kind, capsys):
    if kind == "csv":
        Path("x.csv").write_text('id,x\n1,"[1, 2, 3, 4]"\n2,"[0.5, 0, 0, 0]"\n3,[oops\n')
    else:
        pq.write_table(pa.table({"id": [1, 2, 3], "x": [[1.0, 2, 3, 4], [0.5, 0, 0, 0], None]}), "x.parquet")
    out, _ = run("rows", f"x.{kind}", "--column", "x", "--json", code=1, capsys=capsys)
    found = json.loads(out)
    assert [one.get("result") for one in found] == [[2, 4, 6, 8], [1, 0, 0, 0], None]
    assert "error" in found[2]


def test_a_column_of_files_is_an_item_each(service, capsys):
    Path("data").mkdir()
    np.save("data/one.npy", ROWS[1])
    Path("data/list.csv").write_text("file\none.npy\ngone.npy\n")
    out, err = run("rows", "data/list.csv", "--column", "file", "--json", code=1, capsys=capsys)
    assert json.loads(out)[0]["result"] == DOUBLED[1].tolist()
    assert "Error: data/list.csv:1: There is no file 'gone.npy'" in err


def test_lines_are_items(service, monkeypatch, capsys):
    np.save("one.npy", ROWS[1])
    text = b'[1, 2, 3, 4]\n\none.npy\n{"data": [[0, 0, 0, 1]]}\n[1, 2\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    out, err = run("rows", "-", "--lines", "--json", code=1, capsys=capsys)
    found = json.loads(out)
    assert [one.get("result") for one in found] == [[2, 4, 6, 8], DOUBLED[1].tolist(), [[0, 0, 0, 2]], None]
    assert "Error: -:3: gpu_infer.Row cannot be turned into an array: it is no JSON: [1, 2" in err
    Path("x.jsonl").write_bytes(text)
    assert json.loads(run("rows", "x.jsonl", "--json", code=1, capsys=capsys)[0])[0]["file"] == "x.jsonl"


def test_folders_and_patterns_are_files_by_name(here):
    for name in ("b.jpg", "a.PNG", "notes.txt", "in/c.jpg", "in/deep/d.jpg"):
        (here / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "photos" / name).write_bytes(b"x")
    said: list[str] = []
    assert find(["photos"], said.append) == ["photos/a.PNG", "photos/b.jpg"]
    assert find(["photos/**/*.jpg"], said.append) == ["photos/b.jpg", "photos/in/c.jpg", "photos/in/deep/d.jpg"]
    assert said == ["photos: 2 images", "photos/**/*.jpg: 3 files"]
    Path("[1].jpg").write_bytes(b"x")
    assert find(["[1].jpg"], said.append) == ["[1].jpg"]
    for name, problem in (("photos/*.gif", "No file fits"), ("gone.jpg", "There is no file 'gone.jpg'")):
        with pytest.raises(ValueError, match=problem):
            find([name], said.append)
    (here / "photos" / "b.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'photos/b.jpg' is empty"):
        find(["photos"], said.append)
    (here / "up" / "in").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no images in the folder 'up', nor any file"):
        find(["up"], said.append)
    (here / "up" / "in" / "x.webp").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"by a pattern in quotes: 'up/\*\*/\*.webp'"):
        find(["up"], said.append)


def test_a_csv_file_may_have_another_separator_or_no_header():
    Path("x.csv").write_text("\ufeffa;b\n1;2\n3;\n5;x\n6\n7;8\n", encoding="utf-8")
    items = list(source_of("x.csv", Choice(), lines=False, rows=False, takes=Takes()).read())
    assert [str(label) for label, _ in items] == ["x.csv:0", "x.csv:1", "x.csv:2", "x.csv:3", "x.csv:4"]
    assert items[0][1].tolist() == [1, 2]
    assert items[4][1].tolist() == [7, 8]
    for (_, item), problem in zip(items[1:4], ("column 'b' is empty", "holds 'x'", "1 fields"), strict=True):
        assert isinstance(item, Row)
        with pytest.raises(ValueError, match=problem):
            np.asarray(item)
    write_csv("y.csv", [[1, 2], [3, 4]], header="")
    source = source_of("y.csv", Choice(("1",)), lines=False, rows=False, takes=Takes())
    assert (source.count, [item.tolist() for _, item in source.read()]) == (2, [[2], [4]])


def test_missing_numbers_in_a_parquet_file_are_no_items():
    table = pa.table({"a": pa.array([1, None, 3]), "b": pa.array([True, False, None])})
    pq.write_table(table, "x.parquet")
    items = [item for _, item in source_of("x.parquet", Choice(), lines=False, rows=False, takes=Takes()).read()]
    assert items[0].tolist() == [1, 1]
    for item, name in zip(items[1:], "ab", strict=True):
        with pytest.raises(ValueError, match=f"column '{name}' is empty"):
            np.asarray(item)


# --- what is wrong is said before anything is sent --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("gone.csv",), 1, "There is no file 'gone.csv'. Nothing was sent."),
        (("empty.csv",), 1, "The file 'empty.csv' is empty."),
        (("header.csv",), 1, "'header.csv' has no rows below its header"),
        (("text.csv",), 1, "No column of 'text.csv' holds numbers. It has: name, word."),
        (("text.csv", "--column", "word"), 2, "column 'word' of text.csv does not hold numbers, nor files, nor lists."),
        (("x.csv", "--column", "nope"), 2, "x.csv has no column 'nope'. It has: a, b, c."),
        (("x.csv", "--without", "*"), 2, "leaves no column with numbers of x.csv."),
        (("lines.jsonl", "--out", "y.jsonl"), 1, "There is nothing to score: the input has no lines."),
        (("x.csv",), 1, "Expected float32 [4], got float32 [3]. The row is made of 3 columns: a, b, c;"),
        (("wide.npy",), 1, "wide.npy: Expected float32 [N, 4], got float32 [3, 5]"),
        (("none.npy", "--rows"), 1, "has no rows: float32 [0, 4]"),
        (("text.npy",), 1, "'text.npy' is no array that can be sent"),
        (("text.parquet",), 1, "is no Parquet file"),
        (("words.parquet", "--column", "word"), 2, "holds text, and its first, 'so', is no file."),
        (("x.csv", "one.npy", "--column", "a", "--out", "y.xlsx"), 2, "y.xlsx is of no kind that results are written"),
        (("one.npy", "--out", "gone/y.csv"), 2, "there is no folder gone."),
        (("one.npy", "--out", "y.npy", "--top", "1"), 2, "--top goes into .jsonl, .csv or .parquet"),
        (("one.npy", "--column", "a"), 2, "there is no table among the inputs."),
        (("one.npy", "--resume"), 2, "needs --out FILE, or --checkpoint FILE."),
        (("one.npy", "--key-from", "KEY"), 2, "is for a scoring URI"),
    ],
)
def test_what_cannot_be_scored_is_told_and_nothing_is_sent(service, arguments, code, message, capsys):
    Path("empty.csv").touch()
    Path("lines.jsonl").write_text("\n\n")
    Path("header.csv").write_text("a,b\n")
    Path("text.csv").write_text("name,word\nx,so\n")
    write_csv("x.csv", [[1, 2, 3]], "a,b,c")
    np.save("one.npy", ROWS[0])
    np.save("wide.npy", np.zeros((3, 5), np.float32))
    np.save("none.npy", ROWS[:0])
    Path("text.npy").write_text("text")
    Path("text.parquet").write_text("text")
    pq.write_table(pa.table({"word": ["so"]}), "words.parquet")
    before = service.stats()["items"]
    out, err = run("rows", *arguments, code=code, capsys=capsys)
    assert message in err
    assert out == ""
    assert service.stats()["items"] == before
    assert not list(Path().glob("y.*"))


# --- what is written --------------------------------------------------------------------------------------------------


def test_every_kind_of_file_has_all_results_and_errors_in_order(service, here, capsys):
    rows = ROWS[:50].tolist()
    rows[0][1] = "n/a"
    rows[30][2] = ""
    write_csv("x.csv", rows)
    for name in ("y.jsonl", "y.csv", "y.parquet", "y.npy"):
        out, err = run("rows", "x.csv", "--out", name, code=1, capsys=capsys)
        assert out.startswith(f"{name}: 50 items in ")
        assert out.endswith("; 2 failed\n")
        assert (
            "x.csv:0: gpu_infer.Row cannot be turned into an array: column 'b' holds 'n/a', which is no number" in err
        )
        assert err.endswith("Next: the same command with --resume sends only the 2 items that failed")
    lines = jsonl("y.jsonl")
    assert [line["row"] for line in lines] == list(range(50))
    assert lines[49] == {"file": "x.csv", "row": 49, "result": DOUBLED[49].tolist()}
    assert sorted(lines[0]) == ["error", "file", "row"]
    with Path("y.csv").open(newline="") as stream:
        cells = list(csv.reader(stream))
    assert cells[0] == ["file", "row", "result_cat", "result_dog", "result_lynx", "result_owl", "error"]
    assert cells[1][2:6] == ["", "", "", ""]
    assert "column 'b' holds 'n/a'" in cells[1][6]
    assert cells[50] == ["x.csv", "49", "392.0", "394.0", "396.0", "398.0", ""]
    table = pq.read_table("y.parquet")
    assert table.column_names == ["file", "row", "result", "error"]
    assert table["result"].to_pylist()[49] == DOUBLED[49].tolist()
    assert [row for row, error in enumerate(table["error"].to_pylist()) if error] == [0, 30]
    array = np.load("y.npy")
    assert array.dtype == np.float32
    assert np.flatnonzero(np.isnan(array).any(axis=1)).tolist() == [0, 30]
    np.testing.assert_array_equal(array[31:], DOUBLED[31:50])
    assert not list(here.glob("*.part"))


def test_top_gives_the_names_of_the_best_classes(service, capsys):
    np.save("x.npy", ROWS[:3])
    np.save("one.npy", ROWS[1])
    out, _ = run("rows", "one.npy", "--top", "2", capsys=capsys)
    assert [line.split() for line in out.splitlines()] == [["owl", "14"], ["lynx", "12"]]
    assert run("rows", "x.npy", "--top", "2", capsys=capsys)[0].splitlines()[1] == "x.npy:1  owl: 14, lynx: 12"
    best = [{"index": 3, "label": "owl", "score": 14.0}, {"index": 2, "label": "lynx", "score": 12.0}]
    assert json.loads(run("rows", "one.npy", "--top", "2", "--json", capsys=capsys)[0])[0]["result"] == best
    run("rows", "x.npy", "--top", "2", "--out", "y.parquet", capsys=capsys)
    assert pq.read_table("y.parquet")["result"].to_pylist()[1] == best
    run("rows", "x.npy", "--top", "1", "--out", "y.csv", capsys=capsys)
    assert Path("y.csv").read_text().splitlines()[:3] == [
        "file,row,index,label,score,error",
        "x.npy,0,3,owl,6.0,",
        "x.npy,1,3,owl,14.0,",
    ]


def test_json_with_out_is_a_summary(service, capsys):
    np.save("x.npy", ROWS)
    told = json.loads(run("rows", "x.npy", "--out", "y.npy", "--json", capsys=capsys)[0])
    assert told.pop("seconds") >= 0
    assert told == {"out": "y.npy", "items": 100, "failed": 0, "resumed": 0}


def test_a_score_that_float32_holds_is_told_with_its_own_digits():
    scores = ClassScores(np.array([0.1, 0.7], np.float32))
    assert results.best_of(scores, 1) == [{"index": 1, "score": 0.7}]
    assert results.line(scores, 1).plain == "1: 0.7"
    assert json_line(Label("x"), np.array([0.1, np.inf], np.float32)) == b'{"file":"x","result":[0.1,null]}'


@pytest.mark.parametrize(
    ("name", "outcomes", "problem"),
    [
        ("y.csv", [[1.0, 2.0], [1.0]], "has the columns result_0, those before it result_0, result_1"),
        ("y.npy", [np.zeros(2), np.zeros(3)], r"is float64 \[3\], those before it are float64 \[2\]"),
        ("y.npy", [np.zeros(2), "text"], "is no array of numbers"),
        ("y.npy", [np.zeros(2, np.int64), BadInputError("no")], "1 item has failed, and an array of int64"),
        ("y.npy", [BadInputError("no")], "No item has a result"),
    ],
)
def test_a_file_of_one_form_takes_no_results_of_several(here, name, outcomes, problem):
    (here / name).write_text("older")

    def write() -> None:
        with sink_for(here / name, None) as sink:
            for at, outcome in enumerate(outcomes):
                sink.add(Label("x", at), outcome)

    with pytest.raises(ValueError, match=problem):
        write()
    assert [path.name for path in here.iterdir()] == [name]
    assert (here / name).read_text() == "older"


def test_a_parquet_file_may_begin_with_items_that_failed(here, monkeypatch):
    monkeypatch.setattr("gpu_infer.client.many.parquet.ROWS", 2)
    with sink_for(here / "y.parquet", None) as sink:
        for at in range(5):
            sink.add(Label("x", at), BadInputError("no"))
        sink.add(Label("x", 5), np.array([1, 2], np.int32))
    assert pq.read_table(here / "y.parquet")["result"].to_pylist() == [None] * 5 + [[1, 2]]


def test_half_a_file_of_a_killed_run_is_removed_and_that_of_a_running_one_stays(here):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(30)
    for name in (f"y.csv.{ended.pid}.part", f"y.csv.{os.getppid()}.part", "y.csv.notes.part"):
        (here / name).touch()
    with sink_for(here / "y.csv", None) as sink:
        sink.add(Label("x"), 1)
    assert sorted(path.name for path in here.iterdir()) == ["y.csv", f"y.csv.{os.getppid()}.part", "y.csv.notes.part"]


def test_results_with_names_are_columns(here):
    with sink_for(here / "y.csv", None) as sink:
        sink.add(Label("a.jpg"), {"class": 3, "box": np.array([0.5, 1], np.float32), "mask": [[1], [2]]})
    assert (here / "y.csv").read_text() == 'file,row,class,box_0,box_1,mask,error\na.jpg,,3,0.5,1.0,"[[1], [2]]",\n'


# --- how it goes on ---------------------------------------------------------------------------------------------------


def test_an_interrupted_run_says_how_to_go_on_and_does(service, here, monkeypatch, capsys):
    np.save("x.npy", ROWS)
    arguments = ("rows", "x.npy", "--out", "y.jsonl", "--items-per-request", "1")

    def interrupted(label: Label, outcome: Any) -> bytes:
        if label.row == 60:
            raise KeyboardInterrupt
        return json_line(label, outcome)

    with monkeypatch.context() as patch:
        patch.setattr("gpu_infer.cli.score_outputs.json_line", interrupted)
        _, err = run(*arguments, code=130, capsys=capsys)
    kept = "60 results so far, kept in y.jsonl.checkpoint. To go on, type the same command with --resume."
    assert err == f"Interrupted. {kept}"
    assert sorted(path.name for path in here.iterdir()) == ["x.npy", "y.jsonl.checkpoint"]
    _, err = run(*arguments, code=1, capsys=capsys)
    assert "Add --resume to go on with them, or remove that file to begin anew." in err

    before = service.stats()["items"]
    out, _ = run(*arguments, "--resume", capsys=capsys)
    assert " of them done before" in out
    assert service.stats()["items"] - before <= 40
    assert [line["result"] for line in jsonl("y.jsonl")] == DOUBLED.tolist()
    assert sorted(path.name for path in here.iterdir()) == ["x.npy", "y.jsonl"]


def test_only_what_failed_is_sent_again(service, here, capsys):
    Path("x.jsonl").write_text("[1, 2, 3, 4]\none.npy\n")
    _, err = run("rows", "x.jsonl", "--out", "y.jsonl", code=1, capsys=capsys)
    assert err.endswith("Next: the same command with --resume sends only the 1 item that failed")
    np.save("one.npy", ROWS[1])
    out, _ = run("rows", "x.jsonl", "--out", "y.jsonl", "--resume", capsys=capsys)
    assert "; 1 of them done before" in out
    assert [line["result"] for line in jsonl("y.jsonl")] == [[2, 4, 6, 8], DOUBLED[1].tolist()]
    assert not (here / "y.jsonl.checkpoint").exists()


def test_a_named_checkpoint_stays_and_is_of_its_items(service, capsys):
    np.save("x.npy", ROWS)
    run("rows", "x.npy", "--checkpoint", "kept.db", capsys=capsys)
    _, err = run("rows", "x.npy", "--checkpoint", "kept.db", "--out", "y.npy", capsys=capsys)
    assert Path("kept.db").exists()
    np.testing.assert_array_equal(np.load("y.npy"), DOUBLED)
    np.save("x.npy", ROWS + 1)
    _, err = run("rows", "x.npy", "--checkpoint", "kept.db", code=1, capsys=capsys)
    assert "is not the one that the checkpoint 'kept.db' has a result for" in err


def test_a_service_that_is_gone_or_a_wrong_key_ends_it():
    tally = score_run._Tally()
    for _ in range(score_run.UNREACHABLE - 1):
        tally.take(Label("x"), ScoringConnectionError("gone"))
    tally.take(Label("x"), np.zeros(1))
    for _ in range(score_run.UNREACHABLE - 1):
        tally.take(Label("x"), ScoringConnectionError("gone"))
    with pytest.raises(ScoringConnectionError):
        tally.take(Label("x"), ScoringConnectionError("gone"))
    assert len(tally.errors) == score_run.LISTED
    with pytest.raises(AuthenticationError):
        score_run._Tally().take(Label("x"), AuthenticationError("no"))


@pytest.mark.parametrize("arguments", [("one.npy",), ("x.npy", "--rows", "--out", "y.npy")])
def test_ctrl_c_waits_for_no_answer(arguments):
    np.save("one.npy", ROWS[0])
    np.save("x.npy", ROWS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/score"
        with subprocess.Popen(
            [sys.executable, "-m", "gpu_infer.cli", "score", uri, *arguments, "--codec", "json"],
            env={**os.environ, "PYTHONPATH": str(Path(gpu_infer.__file__).parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has them ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one call, no lock
        ) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                assert connection.recv(4) == b"POST"
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)  # half of what the request has
    assert (process.returncode, out) == (130, "")
    assert "Interrupted." in err
    assert "Traceback" not in err
    assert not Path("y.npy.checkpoint").exists()


# --- scoring URIs -----------------------------------------------------------------------------------------------------


def test_any_scoring_uri_is_scored_with_a_key_from_the_environment(service, monkeypatch, capsys):
    np.save("x.npy", ROWS)
    keys: list[Any] = []

    class Client(gpu_infer.ScoringClient):
        def __init__(self, uri: str, credential: Any, **options: Any) -> None:
            keys.append(credential)
            super().__init__(uri, **options)

    monkeypatch.setattr("gpu_infer.client.ScoringClient", Client)
    monkeypatch.setenv("MY_KEY", "secret-key")
    out, err = run(service.scoring_uri, "x.npy", "--key-from", "MY_KEY", "--out", "y.npy", capsys=capsys)
    assert keys == ["secret-key"]
    assert "secret-key" not in out + err
    assert "Next:" not in err
    np.testing.assert_array_equal(np.load("y.npy"), DOUBLED)
    _, err = run(service.scoring_uri, "x.npy", "--codec", "xml", code=2, capsys=capsys)
    assert "'xml' is none of json, npy, bytes, kserve." in err
    _, err = run(service.scoring_uri, "x.npy", "--key-from", "secret-key", code=2, capsys=capsys)
    assert "names no environment variable that is set" in err
    assert "secret-key" not in err
