"""score_many with callers, items and ends that are not kind to it."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gpu_infer import errors
from gpu_infer.client.many import parquet
from gpu_infer.client.many.checkpoint import Checkpoint
from gpu_infer.client.many.options import ManyOptions
from gpu_infer.client.many.pieces import piece_of

STILL_THERE = 60.0
"""Seconds: longer than any test waits for a process to end."""


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture
def echoing(server: Any, steps: Any) -> None:
    """The server answers arrays with themselves as a service of ours, and anything else with its length."""

    def step(connection: Any, seen: Any) -> bool:
        if not seen.body.startswith(b"\x93NUMPY"):
            return steps.answer(200, len(seen.body), steps.ours)(connection, seen)
        return steps.answer(200, seen.body, steps.ours, "application/x-npy")(connection, seen)

    server.default = step


# --- items ------------------------------------------------------------------------------------------------------------


def test_a_generator_may_fill_one_buffer_again_and_again(make, echoing):
    def rows() -> Iterator[np.ndarray[Any, Any]]:
        buffer = np.zeros(3)
        for number in range(200):
            buffer[:] = number
            yield buffer

    array = make().score_many(rows(), method="to_array")
    assert array.tolist() == [[number] * 3 for number in range(200)]


def test_a_copy_is_kept_of_all_that_a_generator_could_change():
    image = pytest.importorskip("PIL.Image")
    film = io.BytesIO()
    frames = [image.new("L", (2, 2), shade) for shade in (0, 100, 200)]
    frames[0].save(film, "GIF", save_all=True, append_images=frames[1:])
    opened = image.open(io.BytesIO(film.getvalue()))
    kept: list[Any] = []
    for frame in range(3):
        opened.seek(frame)
        kept.append(piece_of(frame, opened, own=True).item)
    shades = [np.asarray(one.convert("L"))[0, 0] for one in kept]
    assert len({int(shade) for shade in shades}) == 3

    array, text = np.zeros(2), bytearray(b"before")
    nested = {"data": [array, {"deep": text}]}
    mine = piece_of(0, nested, own=True).item
    view = piece_of(0, memoryview(text), own=True).item
    array[:], text[:] = 1, b"after!"
    assert mine["data"][0].tolist() == [0, 0]
    assert (mine["data"][1]["deep"], view) == (b"before", b"before")


def test_what_is_there_already_is_not_copied():
    row = np.zeros(3)
    assert piece_of(0, row).item is row


@pytest.mark.parametrize("broken", ["closed", "raises"])
def test_a_file_that_cannot_be_read_fails_alone(make, echoing, tmp_path, broken):
    path = tmp_path / "item"
    path.write_bytes(b"item")
    with path.open("rb") as file:
        pass

    class Raises:
        def read(self) -> bytes:
            raise OSError("the disk is gone")

    items = [np.zeros(2), file if broken == "closed" else Raises(), np.ones(2)]
    first, error, last = make().score_many(items, on_error="return", method="to_list")
    assert (first.tolist(), last.tolist()) == ([0, 0], [1, 1])
    assert isinstance(error, errors.BadInputError)
    assert "the file cannot be read" in str(error).lower()
    assert error.__notes__ == ["This was item 1 of score_many()."]


def test_every_second_byte_of_a_view_is_an_item(make, echoing):
    assert make().score_many([memoryview(b"abcdef")[::2]], method="to_list") == [3]


def test_dates_are_items(make, echoing, tmp_path):
    days = np.array(["2026-11-25", "2026-11-26"], "datetime64[D]").reshape(2, 1)
    found = make().score_many(days, method="to_array", checkpoint=tmp_path / "c")
    assert found.tolist() == days.tolist()


def test_a_folder_that_is_not_there_is_said_to_be_missing(make, tmp_path):
    with pytest.raises(TypeError, match="There is no folder .*photos"):
        make().score_many(tmp_path / "photos")


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "8"])
@pytest.mark.parametrize("name", ["concurrency", "items_per_request"])
def test_numbers_of_things_are_whole(name, number):
    with pytest.raises(ValueError, match=f"{name} must be a whole number from 1"):
        ManyOptions(**{name: number})


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (np.zeros(4, np.float32), np.zeros(4, np.int32)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_another_dtype_shape_or_dict_is_another_item(tmp_path, before, now):
    checkpoint = Checkpoint(tmp_path / "c")
    checkpoint.keep(piece_of(0, before), 1)
    assert checkpoint.find(piece_of(0, before)) == (1,)
    with pytest.raises(errors.CheckpointError, match="Item 0 is not the one"):
        checkpoint.find(piece_of(0, now))
    checkpoint.close()


def test_a_place_that_takes_no_file_is_not_called_a_wrong_file():
    with pytest.raises(errors.CheckpointError, match="cannot be written as a checkpoint"):
        Checkpoint("/dev/full")


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors_in_the_place_of_results_hold_no_requests(make, server, steps):
    server.default = steps.answer(400, {"message": "no"})
    for error in make().score_many(range(5), on_error="return", method="to_list"):
        assert isinstance(error, errors.BadInputError)
        assert error.__traceback__ is None


def test_a_parquet_file_may_begin_with_errors(make, server, steps, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet, "ROWS", 4)

    def step(connection: Any, seen: Any) -> bool:
        number = int(np.load(io.BytesIO(seen.body)))
        good = steps.answer(200, npy(np.full(2, number)), None, "application/x-npy")
        return (steps.answer(400, {"message": "no"}) if number < 10 else good)(connection, seen)

    server.default = step
    path = tmp_path / "scores.parquet"
    assert make().score_many(range(30), on_error="return", method="to_parquet", argument=path) == 30
    table = pytest.importorskip("pyarrow.parquet").read_table(path).to_pydict()
    assert table["item"] == list(range(30))
    assert table["result"] == [None] * 10 + [[number, number] for number in range(10, 30)]
    assert [error is None for error in table["error"]] == [False] * 10 + [True] * 20
    assert list(tmp_path.iterdir()) == [path]


def test_a_parquet_file_without_a_folder_is_refused_before_anything_is_sent(make, server, tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        make().score_many(range(3), method="to_parquet", argument=tmp_path / "no" / "scores.parquet")
    assert server.seen == []


def test_results_that_make_no_column_are_said_to_be_ones(make, server, steps, tmp_path):
    pytest.importorskip("pyarrow")
    server.plays(steps.answer(200, {"a": 1}), steps.answer(200, "text"))
    with pytest.raises(ValueError, match="of items 0 to 1 make no column of a Parquet file"):
        make().score_many(range(2), concurrency=1, method="to_parquet", argument=tmp_path / "scores.parquet")
    assert list(tmp_path.iterdir()) == []


# --- the end ----------------------------------------------------------------------------------------------------------

_INTERRUPTED = """
import sys
from gpu_infer.client import ScoringClient
try:
    list(ScoringClient(sys.argv[1], timeout=600).score_many(range(100)))
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_ends_at_ctrl_c_though_requests_hang(server):
    arrived = threading.Event()

    def hang(*_: object) -> bool:
        arrived.set()
        server.closing.wait(STILL_THERE)
        return False

    server.default = hang
    command = [sys.executable, "-c", _INTERRUPTED, server.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert arrived.wait(STILL_THERE)
            process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=STILL_THERE / 2)
        finally:
            process.kill()
    assert (said, complaints, process.returncode) == ("interrupted\n", "", 0)
