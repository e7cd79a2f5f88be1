"""What the runtime knows of whatever runs the model, in this process or in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Protocol, Tuple

from ..adapters.base import Adapter, DeviceInfo, TensorSpec
from .jobs import BlockResult, Rows


@dataclass(frozen=True)
class ModelFacts:
    """A loaded model, told without the model.

    Args:
        framework: ``tensorflow``, ``torch`` or ``onnxruntime``.
        input: what it takes.
        outputs: what it answers with.
        device: where it runs.
    """

    framework: str
    input: TensorSpec
    outputs: Tuple[TensorSpec, ...]
    device: DeviceInfo

    @classmethod
    def of(cls, adapter: Adapter) -> ModelFacts:
        """The facts of a model that is loaded here."""
        return cls(adapter.framework, adapter.input, adapter.outputs, adapter.device)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> ModelFacts:
        """The facts as another process told them."""
        return cls(
            facts["framework"],
            _spec(facts["input"]),
            tuple(_spec(output) for output in facts["outputs"]),
            DeviceInfo(**facts["device"]),
        )

    def to_json(self) -> Dict[str, Any]:
        """What ``from_json`` takes."""

        def spec(tensor: TensorSpec) -> Dict[str, Any]:
            return {"name": tensor.name, "dtype": tensor.dtype, "shape": tensor.shape}

        device = self.device
        return {
            "framework": self.framework,
            "input": spec(self.input),
            "outputs": [spec(output) for output in self.outputs],
            "device": {
                "kind": device.kind,
                "name": device.name,
                "index": device.index,
                "details": dict(device.details),
            },
        }


def _spec(told: Mapping[str, Any]) -> TensorSpec:
    shape = told["shape"]
    return TensorSpec(told["name"], told["dtype"], None if shape is None else tuple(shape))


class Engine(Protocol):
    """Runs blocks of items through the model."""

    facts: ModelFacts

    @property
    def makes(self) -> bool:
        """Whether ``run`` is better given what makes an item than the item."""
        ...

    def run(self, rows: Rows, *, deadline: float) -> BlockResult:
        """Run a block of items of one shape, see ``Batcher.run``."""
        ...

    def stats(self) -> Dict[str, Any]:
        """Counters since the start, see ``Batcher.stats``."""
        ...

    def other_workers(self) -> List[Mapping[str, Any]]:
        """What the other workers of the service have counted."""
        ...

    def gpu_report(self) -> Dict[str, Any]:
        """The device report of the process that has the model."""
        ...

    def healthy(self) -> bool:
        """Whether it can answer now."""
        ...

    def close(self) -> None:
        """End what it has started."""
        ...
