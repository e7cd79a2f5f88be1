"""What the user may tell an adapter about a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple


@dataclass(frozen=True)
class AdapterOptions:
    """Everything an adapter may need beside the model's files.

    Args:
        input_name: tensor that takes the batch, as ``"network/X:0"`` (TF1 graphs); ``None``: found.
        output_names: outputs that will be asked for; ``None``: all that the model declares.
        signature: SavedModel signature; ``None``: ``serving_default``, or the only one.
        item_shape: shape of one item where the format does not say (TorchScript).
        allow_cpu: load on the CPU where no GPU is visible, instead of raising ``NoGpuError``.
        threads: CPU threads of one run; ``None``: the framework's own choice.
        optimize: use what makes a model faster and keeps its dtype (memory layout, frozen weights).
        precision: ``"fp32"`` for the numbers that the model was saved with; ``"bf16"`` or ``"fp16"`` (PyTorch).
        compile: run it through ``torch.compile`` (``torch.export`` programs).
        cuda_graphs: record each batch size once and replay it (PyTorch on a GPU).
    """

    input_name: Optional[str] = None
    output_names: Optional[Tuple[str, ...]] = None
    signature: Optional[str] = None
    item_shape: Optional[Tuple[int, ...]] = None
    allow_cpu: bool = False
    threads: Optional[int] = None
    optimize: bool = True
    precision: str = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
