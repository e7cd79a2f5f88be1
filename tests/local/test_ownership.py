"""Who owns a local service, and what happens when several processes, threads or handles have a say in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import processes
import psutil
import pytest
from processes import supervisors

import gpu_infer
from gpu_infer.errors import PreflightError
from gpu_infer.ledger import Ledger, exclusive
from gpu_infer.targets import _supervisor, local_process

from .conftest import environment


@contextlib.contextmanager
def owner(state: Path, model: Path, name: str):
    """Another process that has deployed ``name`` and waits for a line before it ends."""
    source = f"""
        import sys, gpu_infer
        gpu_infer.deploy(sys.argv[1], name={name!r})
        print("ready", flush=True)
        sys.stdin.readline()
    """
    command = [sys.executable, "-c", textwrap.dedent(source), str(model)]
    process = subprocess.Popen(
        command, env=environment(state), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "ready\n"
        yield process
        if process.poll() is None:
            process.stdin.write("\n")
            process.stdin.close()
            process.wait(30)


def test_what_another_process_keeps_outlives_its_owner(tiny_model: Path, state: Path) -> None:
    with owner(state, tiny_model, "svc"):
        service = gpu_infer.attach("svc").keep("1h")
    assert service.refresh().state == "Healthy"
    assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2]
    service.delete()


@pytest.mark.slow
def test_what_another_process_scales_stays_its_owners(tiny_model: Path, state: Path) -> None:
    with owner(state, tiny_model, "svc") as process:
        source = "import gpu_infer; gpu_infer.attach('svc').scale(workers=2)"
        subprocess.run([sys.executable, "-c", source], env=environment(state), check=True, timeout=100)
        service = gpu_infer.attach("svc")
        time.sleep(2 * _supervisor.POLL_SECONDS)
        assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2], "it does not end with the process that scaled it"
        process.send_signal(signal.SIGKILL)
        process.wait()
        end = time.monotonic() + 10
        while supervisors(state) and time.monotonic() < end:
            time.sleep(0.1)
        assert not supervisors(state), "but with its owner"


def test_the_handle_of_a_replaced_service_does_not_delete_its_successor(tiny_model: Path, square_model: Path) -> None:
    with gpu_infer.deploy(tiny_model, name="svc"):
        second = gpu_infer.deploy(square_model, name="svc", overwrite=True)
    assert second.score([3.0, 0, 0, 0])[0] == 9
    second.delete()


def test_names_that_are_made_up_at_the_same_time(tiny_model: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        services = list(pool.map(lambda _: gpu_infer.deploy(tiny_model), range(4)))
    try:
        assert sorted(service.name for service in services) == ["tiny", "tiny-2", "tiny-3", "tiny-4"]
    finally:
        for service in services:
            service.delete()


def test_two_processes_that_want_one_name(tiny_model: Path, state: Path) -> None:
    source = "import sys, time, gpu_infer; gpu_infer.deploy(sys.argv[1], name='one', keep=True); print('mine')"
    command = [sys.executable, "-c", source, str(tiny_model)]
    rivals = [
        subprocess.Popen(command, env=environment(state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [rival.communicate(timeout=100) for rival in rivals]
    assert sorted(out for out, _ in answers) == ["", "", "mine\n"]
    assert sum("'one' exists already" in err for _, err in answers) == 2
    assert [service.name for service in gpu_infer.services()] == ["one"]


def test_a_supervisor_killed_while_its_server_starts_leaves_none(tiny_model: Path, state: Path) -> None:
    for wait in (0.0, 0.02, 0.05, 0.1, 0.2):
        service = gpu_infer.deploy(tiny_model, wait=False)
        [supervisor] = supervisors(state)
        time.sleep(wait)
        supervisor.send_signal(signal.SIGKILL)
        end = time.monotonic() + 10
        while processes.below(state) and time.monotonic() < end:
            time.sleep(0.05)
        assert not processes.below(state)
        service.delete()


def test_stopping_what_was_never_started_touches_nobody() -> None:
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    time.sleep(0.2)
    local_process.stop(0, "")
    local_process.stop(-1, "")
    assert not local_process.is_alive(0, "")
    assert child.wait() == 7


def test_a_process_is_known_by_its_start_too() -> None:
    me = os.getpid()
    started = local_process.process_start(me)
    assert local_process.is_alive(me, started)
    assert not local_process.is_alive(me, f"{started}0"), "the pid is another process's by now"


def test_the_shells_own_variables_do_not_change_a_service(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_INFER_POSTPROCESS", "argmax")
    monkeypatch.setenv("WORKER_COUNT", "3")
    with gpu_infer.deploy(tiny_model) as service:
        assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2]
        assert service.logs().count("Booting worker") == 1


def test_variables_never_show(tiny_model: Path) -> None:
    plan = gpu_infer.plan(tiny_model, environment_variables={"MY_KEY": "s3cr3t"})
    assert "s3cr3t" not in repr(plan) + str(plan) + plan._repr_html_() + str(plan.to_dict())


def test_hook_files_that_cannot_lie_in_one_bundle(tiny_model: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "hooks.py").write_text("def preprocess(x): return x\ndef postprocess(x): return x\n")
    with pytest.raises(PreflightError, match=r"cannot hold this hook file beside what it has of that name: hooks\.py"):
        gpu_infer.deploy(tiny_model, preprocess=tmp_path / "a" / "hooks.py", postprocess=tmp_path / "b" / "hooks.py")
    shutil.copy(tmp_path / "a" / "hooks.py", tmp_path / "score.py")
    with pytest.raises(PreflightError, match=r"of that name: score\.py. Rename it"):
        gpu_infer.deploy(tiny_model, preprocess=tmp_path / "score.py")


def test_a_model_file_brings_its_parts(tiny_model: Path, shared_models: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(400, dtype=np.float32).reshape(4, 100), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "outside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 100])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "outside.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="outside.onnx.data", size_threshold=0)
    assert (tmp_path / "outside.onnx.data").exists()
    with gpu_infer.deploy(path) as service:
        assert service.score([1, 0, 0, 0])[5] == 5
    with gpu_infer.deploy(shared_models / "tf-dnn-mnist" / "mnist-tf.model.meta") as service:
        assert service.score(np.zeros(784)).shape == (10,)


def test_the_folder_it_stands_in(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My Modèl (1)"
    folder.mkdir()
    shutil.copy(tiny_model, folder)
    monkeypatch.chdir(folder)
    with gpu_infer.deploy(".") as service:
        monkeypatch.chdir("/")
        assert service.name == "my-mod-l-1"
        assert service.score(np.ones(4)).tolist() == [2, 2, 2, 2]


def test_a_built_in_that_keeps_the_rank(tiny_model: Path) -> None:
    with gpu_infer.deploy(tiny_model, preprocess="divide:2") as service:
        assert service.score(np.ones(4)).tolist() == [1, 1, 1, 1]
        assert service.score(np.ones((3, 4))).shape == (3, 4)


def test_folders_that_nobody_knows_are_cleared_away(state: Path) -> None:
    forgotten = state / "services" / "svc-abc"
    forgotten.mkdir(parents=True)
    gpu_infer.services()
    assert forgotten.exists(), "it may be under construction"
    os.utime(forgotten, (0, 0))
    gpu_infer.services()
    assert not forgotten.exists()
    assert Ledger().entries("service", "local") == []


def test_a_lock_is_free_though_a_process_that_was_being_started_has_its_file() -> None:
    with exclusive("svc"):
        file = next(one for one in psutil.Process().open_files() if one.path.endswith("/locks/svc"))
        copy = os.dup(file.fd)  # as a child has it between fork and exec
    try:
        with exclusive("svc"), pytest.raises(PreflightError, match="'svc' is being changed"), exclusive("svc"):
            pass
    finally:
        os.close(copy)
