"""Test plans: the language, from a document to steps. One noun a module."""

from proctor_controller.domain.plan.document import VERSIONS, read_plan
from proctor_controller.domain.plan.model import BadPlan, Parameter, Plan, PlanStep

__all__ = ["VERSIONS", "BadPlan", "Parameter", "Plan", "PlanStep", "read_plan"]
