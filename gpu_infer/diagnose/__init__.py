"""Raw errors and logs to one typed error: what happened, why, and what to do. ``docs/errors.md`` lists them."""

from gpu_infer.diagnose.azure import azure_error
from gpu_infer.diagnose.logs import (
    Stage,
    current_stage,
    hanging_stack,
    init_failure,
    last_traceback,
    stages,
    tail,
)

__all__ = [
    "Stage",
    "azure_error",
    "current_stage",
    "hanging_stack",
    "init_failure",
    "last_traceback",
    "stages",
    "tail",
]
