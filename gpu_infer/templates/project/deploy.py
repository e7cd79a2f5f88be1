"""Deploys a model with the hooks beside this file, scores one file, tears down.

Usage: python deploy.py MODEL FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import gpu_infer

HERE = Path(__file__).parent


def main() -> None:
    """Deploy, score, tear down."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model, file = sys.argv[1:]
    hooks = HERE / "hooks.py"
    # The service ends with this block. To let it run on: service.keep("8h"), or `gpu-infer deploy`.
    with gpu_infer.deploy(model, preprocess=hooks, postprocess=hooks, conda_file=HERE / "conda.yml") as service:
        print(service)
        try:
            print(service.score(file))
        except gpu_infer.errors.ScoringError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
