"""From AKS web services of ``azureml-core`` to online endpoints of ``azure-ai-ml``.

::

    mapping    what of a service maps to which argument of deploy(), and what does not
    plan       the plan: what maps to what, what does not, what both cost
    comparing  whether two services give the same answers
    run        deploy, compare, and only then let go of the old one
"""

from __future__ import annotations

from gpu_infer.migration.comparing import Comparison
from gpu_infer.migration.plan import MigrationPlan, Move, migrate_plan
from gpu_infer.migration.run import Migration, migrate

__all__ = ["Comparison", "Migration", "MigrationPlan", "Move", "migrate", "migrate_plan"]
