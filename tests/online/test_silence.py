"""What the SDKs print is kept off the screen, also of one that was put in the place of another meanwhile."""

from __future__ import annotations

import contextlib
import io
import sys
import threading

from gpu_infer.targets.silence import quiet


def test_a_call_that_hangs_on_does_not_let_the_next_one_speak() -> None:
    began, over = threading.Event(), threading.Event()

    def hang() -> None:
        with quiet():
            began.set()
            over.wait(60)

    before = sys.stdout
    thread = threading.Thread(target=hang)
    thread.start()
    assert began.wait(60)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as screen:
            print("mine")
            with quiet():
                print("the SDK's")
            print("mine again")
        assert screen.getvalue() == "mine\nmine again\n"
    finally:
        over.set()
        thread.join()
    assert sys.stdout is before


def test_streams_are_as_they_were_and_forward_all_else() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        with quiet(), quiet():
            print("the SDK's")
            assert sys.stdout.isatty() is False
        assert sys.stdout is screen
        print("mine")
    assert screen.getvalue() == "mine\n"
