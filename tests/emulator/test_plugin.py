"""The pytest plugin, in projects of its users: what it brings, and that it leaves the others alone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Project = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Writes files into a project of its own, and runs pytest there as its user would."""

    def run(*options: str, variables: dict[str, str] | None = None, **files: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AZUREML_", "PYTEST_"))
        }
        environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), **(variables or {})}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    return run


def check(done: subprocess.CompletedProcess[str], outcome: str) -> None:
    assert outcome in done.stdout.splitlines()[-1], done.stdout + done.stderr


def test_it_is_light() -> None:
    program = (
        "import pytest, sys; before = set(sys.modules); import gpu_infer.testing;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "['gpu_infer']"


def test_a_project_that_does_not_use_it_is_left_alone(project: Project):
    done = project(
        "-W",
        "error",
        test_alone="""
            import os, sys

            def test_nothing_is_there():
                assert [name for name in os.environ if name.startswith("AZUREML_")] == []
                assert {"azureml", "azure", "numpy", "requests", "gpu_infer.emulator"} & set(sys.modules) == set()
        """,
    )
    check(done, "1 passed")


def test_each_test_has_a_workspace_of_its_own(project: Project):
    done = project(
        test_workspaces="""
            import os
            import pytest

            seen = []
            before = os.environ.get("REQUESTS_CA_BUNDLE")

            @pytest.mark.parametrize("number", [1, 2])
            def test_a_workspace(azureml_workspace, azureml_emulator, number):
                from azureml.core import Workspace
                from azureml.core.compute import AksCompute, ComputeTarget

                assert type(azureml_workspace) is Workspace
                assert list(azureml_workspace.compute_targets) == []
                nodes = AksCompute.provisioning_configuration(vm_size="Standard_NC4as_T4_v3")
                ComputeTarget.create(azureml_workspace, "gpus", nodes)
                assert azureml_emulator.billed() == ["gpus"]
                assert [call.operation for call in azureml_emulator.requests].count("compute.create") == 1
                seen.append(azureml_emulator.url)
                assert os.environ["REQUESTS_CA_BUNDLE"] == str(azureml_emulator.ca_file)

            def test_afterwards():
                assert len(set(seen)) == 2
                assert os.environ.get("REQUESTS_CA_BUNDLE") == before
        """,
    )
    check(done, "3 passed")


@pytest.mark.parametrize("options", [(), ("-W", "error")])
def test_the_sdks_warnings_about_itself_are_left_out_and_no_others(project: Project, options: tuple[str, ...]):
    done = project(
        *options,
        test_warnings="""
            import warnings
            import pytest

            FORMAT = "azureml.core.conda_dependencies"

            def test_it(azureml_workspace):
                from azureml.core.conda_dependencies import CondaDependencies

                CondaDependencies()  # warns of its own copy of ruamel
                with pytest.warns(PendingDeprecationWarning, match="my own"):
                    warnings.warn("my own", PendingDeprecationWarning)

            def test_without_it():
                with pytest.warns(PendingDeprecationWarning):
                    warnings.warn_explicit("theirs", PendingDeprecationWarning, FORMAT, 1, module=FORMAT)
        """,
    )
    check(done, "2 passed in")


def test_both_sdks_are_in_one_workspace(project: Project):
    pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed: make setup")
    done = project(
        "-W",
        "error",
        test_both="""
            import os

            def test_one_registry(azureml_client, azureml_workspace, azureml_emulator, tmp_path):
                from azure.ai.ml.entities import Model
                from azureml.core import Model as OldModel

                (tmp_path / "net.onnx").write_bytes(b"weights")
                made = azureml_client.models.create_or_update(Model(name="net", path=tmp_path / "net.onnx"))
                assert [(one.name, one.version) for one in OldModel.list(azureml_workspace)] == [("net", 1)]
                assert azureml_client.workspace_name == azureml_workspace.name == azureml_emulator.name
                assert os.environ["AZUREML_CURRENT_CLOUD"] == "AzureCloud"

            def test_afterwards():
                assert "AZUREML_CURRENT_CLOUD" not in os.environ
        """,
    )
    check(done, "2 passed")


def test_each_test_has_a_ledger_of_its_own(project: Project, tmp_path: Path):
    done = project(
        test_ledgers="""
            import os
            import gpu_infer
            import pytest

            homes = {os.environ["GPU_INFER_HOME"]}

            @pytest.mark.parametrize("number", [1, 2])
            def test_a_ledger(azureml_workspace, local_service, number):
                assert gpu_infer.leftovers() == []
                gpu_infer.provision_cluster(azureml_workspace, "gpus", "Standard_NC4as_T4_v3", keep=True)
                assert [one.name for one in gpu_infer.leftovers()] == ["gpus"]
                homes.add(os.environ["GPU_INFER_HOME"])

            def test_afterwards():
                assert len(homes) == 3
                assert os.environ["GPU_INFER_HOME"] in homes
                assert gpu_infer.leftovers() == []
        """,
        variables={"GPU_INFER_HOME": str(tmp_path / "users")},
    )
    check(done, "3 passed")


def test_the_sdk_repeats_at_once_in_files_that_use_the_emulator(project: Project):
    uses = """
        import os
        at_import = os.environ.get("AZUREML_DEFAULT_BACKOFF")

        def test_backoff(azureml_workspace, azureml_emulator):
            from azureml._restclient.clientbase import DEFAULT_BACKOFF
            from azureml.core.compute import AksCompute, ComputeTarget
            from gpu_infer.emulator import Fault

            assert (at_import, DEFAULT_BACKOFF) == ("0", 0)
            azureml_emulator.add_fault(Fault("compute.create", "status", status=429, times=2))
            nodes = AksCompute.provisioning_configuration(vm_size="Standard_NC4as_T4_v3")
            ComputeTarget.create(azureml_workspace, "gpus", nodes)
            creates = [call.status for call in azureml_emulator.requests if call.operation == "compute.create"]
            assert creates == [429, 429, 201]
    """
    check(project(test_uses=uses), "1 passed")


def test_what_the_user_has_set_stays(project: Project):
    uses = """
        import os

        def test_backoff(azureml_emulator):
            assert os.environ["AZUREML_DEFAULT_BACKOFF"] == "7"
            assert os.environ["AZUREML_DEFAULT_503_BACKOFF"] == "0"
    """
    check(project(test_uses=uses, variables={"AZUREML_DEFAULT_BACKOFF": "7"}), "1 passed")


BLOCKER = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name == {module!r} or name == {module!r}.partition(".")[0] != "azure":
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

    sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize(
    ("fixture", "module", "extras"),
    [
        ("azureml_workspace", "azureml.core", "emulator,aks"),
        ("azureml_emulator", "cryptography", "emulator,aks"),
        ("azureml_client", "azure.ai.ml", "emulator,online"),
        ("local_service", "azureml_inference_server_http", "local"),
    ],
)
def test_a_missing_package_is_named_with_the_command(project: Project, fixture: str, module: str, extras: str):
    done = project(conftest=BLOCKER.format(module=module), test_missing=f"def test_it({fixture}):\n    pass\n")
    message = f"The fixture {fixture} needs {module}, not installed here. Run: pip install 'gpu-infer[{extras}]'"
    assert message in done.stdout
    check(done, "1 error")


def test_a_local_service_ends_with_its_test(project: Project):
    done = project(
        test_local="""
            import gpu_infer
            import pytest

            SCRIPT = "def init():\\n    pass\\n\\n\\ndef run(data):\\n    return data\\n"

            @pytest.fixture
            def service(local_service, tmp_path):
                (tmp_path / "echo.py").write_text(SCRIPT)
                (tmp_path / "weights.txt").write_text("1")
                return local_service(tmp_path / "weights.txt", name="echo", entry_script=tmp_path / "echo.py")

            @pytest.mark.parametrize("again", [1, 2])
            def test_it_answers(service, again):
                assert service.score([1.0, 2.0]) is not None
                assert [one.name for one in gpu_infer.services()] == ["echo"]

            def test_it_is_gone():
                assert gpu_infer.services() == []
        """
    )
    check(done, "3 passed")
