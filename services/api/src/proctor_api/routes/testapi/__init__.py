"""The Test API, one file per noun. Its routes share the checks in ``base``."""

from fastapi import APIRouter

from proctor_api.routes.testapi import (
    cases,
    dashboard,
    deployresults,
    pods,
    projects,
    results,  # noqa: F401 - used by ``ALL_ROUTERS``
    scenarios,
    versions,
)

ROUTERS: tuple[APIRouter, ...] = (
    cases.routes,
    projects.routes,
    pods.routes,
    deployresults.routes,
    scenarios.routes,
    dashboard.routes,
    versions.routes,
)
"""Test cases come before projects, whose names may have slashes. Results, used most, come earlier in ``ALL_ROUTERS``.
"""
