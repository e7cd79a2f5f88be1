"""What the SDKs print is kept off the screen, also of one that was put in the place of another meanwhile."""

from __future__ import annotations

import contextlib
import io
import queue
import signal
import sys
import threading
from collections.abc import Callable

import pytest

from gpu_infer.targets.operations import begin
from gpu_infer.targets.silence import quiet


class Poller:
    """Prints as the SDK's does, from a thread of that name, until it is told to end."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.callbacks: list[Callable[[object], None]] = []
        self.thread = threading.Thread(target=self._look, name="LROPoller(1)", daemon=True)
        self.thread.start()

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self.callbacks.append(callback)

    def _look(self) -> None:
        assert self.over.wait(60)
        print(".", end="")
        for callback in self.callbacks:
            callback(self)


def test_an_operation_that_was_interrupted_while_it_began_prints_nothing() -> None:
    begun: queue.Queue[Poller] = queue.Queue()

    def begin_create() -> Poller:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        poller = Poller()
        begun.put(poller)
        return poller

    before = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()) as screen:
        with pytest.raises(KeyboardInterrupt):
            begin(begin_create)
        poller = begun.get(timeout=60)
        print("mine")
        poller.over.set()
        poller.thread.join(60)
        print("mine again")
    assert screen.getvalue() == "mine\nmine again\n"
    assert sys.stdout is before


def test_an_operation_that_could_not_begin_leaves_the_streams_as_they_were() -> None:
    before = sys.stdout
    with pytest.raises(ZeroDivisionError):
        begin(divmod, 1, 0)
    assert sys.stdout is before


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
