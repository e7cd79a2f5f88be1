"""Results on disk: what was written is there again, and a file that is something else is left alone."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_infer.client.many.checkpoint import COMMIT_EVERY, Checkpoint
from gpu_infer.client.many.pieces import piece_of
from gpu_infer.errors import CheckpointError

DTYPES = st.one_of(
    hnp.floating_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.boolean_dtypes(),
    hnp.complex_number_dtypes(),
)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray | np.generic):
        array, twin = np.asarray(one), np.asarray(other)
        return (
            type(one) is type(other)
            and array.dtype == twin.dtype
            and array.shape == twin.shape
            and (array.tobytes() == twin.tobytes())
        )
    return one == other


@settings(deadline=None)
@given(
    value=st.one_of(
        ARRAYS,
        ARRAYS.map(lambda array: array.ravel()[0] if array.size else np.float32(0)),
        JSON,
        st.binary(),
        st.dictionaries(NAMES, ARRAYS, min_size=1, max_size=3),
    )
)
def test_every_result_comes_back_as_it_was(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "c"
    piece = piece_of(3, b"item")
    first = Checkpoint(path)
    assert first.find(piece) is None
    first.keep(piece, value)
    first.close()
    again = Checkpoint(path)
    found = again.find(piece)
    again.close()
    assert found is not None
    assert same(found[0], value)


def test_a_process_that_is_killed_loses_what_was_not_committed_and_nothing_else(tmp_path):
    clock = [0.0]
    checkpoint = Checkpoint(tmp_path / "c", clock=lambda: clock[0])
    checkpoint.keep(piece_of(0, b"a"), 1)
    clock[0] += COMMIT_EVERY
    checkpoint.keep(piece_of(1, b"b"), 2)
    checkpoint.keep(piece_of(2, b"c"), 3)
    # What a kill leaves behind: the files as they lie on the disk now.
    for name in ("c", "c-wal"):
        (tmp_path / f"dead-{name}").write_bytes((tmp_path / name).read_bytes())
    checkpoint.close()
    left = Checkpoint(tmp_path / "dead-c")
    assert [left.find(piece_of(index, item)) for index, item in enumerate((b"a", b"b", b"c"))] == [(1,), (2,), None]
    left.close()


def test_other_items_are_refused_and_the_file_stays_as_it_is(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c")
    checkpoint.keep(piece_of(0, [1.0, 2.0]), 1)
    with pytest.raises(CheckpointError, match="Item 0 is not the one that the checkpoint .* has a result for"):
        checkpoint.find(piece_of(0, [1.0, 3.0]))
    assert checkpoint.find(piece_of(0, [1.0, 2.0])) == (1,)
    checkpoint.close()


def test_two_jobs_do_not_share_a_file(tmp_path):
    first = Checkpoint(tmp_path / "c")
    first.keep(piece_of(0, b"a"), 1)
    with pytest.raises(CheckpointError, match="is in use by another process"):
        Checkpoint(tmp_path / "c")
    first.close()
    Checkpoint(tmp_path / "c").close()


def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and longer than a header of one is: " + 200 * "x")
    with pytest.raises(CheckpointError, match="is no checkpoint of score_many"):
        Checkpoint(text)
    assert text.read_text().startswith("not a database")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(CheckpointError, match="it holds other tables"):
        Checkpoint(other)
    newer = tmp_path / "newer"
    Checkpoint(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("UPDATE meta SET value = '2'")
    database.close()
    with pytest.raises(CheckpointError, match="another version"):
        Checkpoint(newer)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        Checkpoint(tmp_path / "no" / "folder")


def test_a_result_without_a_form_on_disk_is_said_to_be_one(tmp_path):
    checkpoint = Checkpoint(tmp_path / "c")
    with pytest.raises(CheckpointError, match="cannot be written to the checkpoint"):
        checkpoint.keep(piece_of(0, b"a"), {"x": {1, 2}})
    checkpoint.close()
