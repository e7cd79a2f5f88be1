"""ResNet-50 with random weights as TorchScript, and what it answers: nothing measured here depends on the weights.

Run: ``python resnet50.py FOLDER DEVICE``; ``FOLDER`` has ``photograph.jpg``, gets ``resnet50.pt``, ``rows.npy``
(float32 ``[8, 3, 224, 224]``), ``logits.npy`` (``[8, 1000]``) and ``photograph.npy`` (``[1000]``).
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from onnx_model import pixels

torch: Any = import_module("torch")
nn: Any = torch.nn

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width, blocks and stride of the four stages (He et al., "Deep Residual Learning for Image Recognition", table 1)."""

EXPANSION = 4


class Block(nn.Module):
    """Three convolutions around which the input is led; the stride is in the second one."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.way = nn.Sequential(
            *_convolution(inputs, width, 1),
            nn.ReLU(inplace=True),
            *_convolution(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(width, outputs, 1),
        )
        straight = stride == 1 and inputs == outputs
        self.around = nn.Identity() if straight else nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: Any) -> Any:
        """Both ways, added."""
        return torch.relu(self.way(x) + self.around(x))


def resnet50() -> Any:
    """The network, float32 ``[N, 3, 224, 224]`` to ``[N, 1000]``."""
    layers: list[Any] = [*_convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in STAGES:
        for number in range(blocks):
            layers.append(Block(inputs, width, stride if number == 0 else 1))
            inputs = width * EXPANSION
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> tuple[Any, Any]:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)


def main() -> None:
    """Export, compute, save."""
    folder, device = Path(sys.argv[1]), sys.argv[2]
    torch.manual_seed(0)
    network = resnet50().eval().to(device)
    rows = np.random.default_rng(0).standard_normal((8, 3, 224, 224), dtype=np.float32)
    picture = pixels((folder / "photograph.jpg").read_bytes())
    with torch.inference_mode():
        traced = torch.jit.trace(network, torch.from_numpy(rows).to(device))
        traced.save(str(folder / "resnet50.pt"))
        np.save(folder / "logits.npy", network(torch.from_numpy(rows).to(device)).cpu().numpy())
        np.save(folder / "photograph.npy", network(torch.from_numpy(picture[None]).to(device)).cpu().numpy()[0])
    np.save(folder / "rows.npy", rows)


if __name__ == "__main__":
    main()
