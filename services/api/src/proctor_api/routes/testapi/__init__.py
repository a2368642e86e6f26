"""The Test API: one file a noun, all behind one door."""

from fastapi import APIRouter

from proctor_api.routes.testapi import (
    cases,
    dashboard,
    deployresults,
    pods,
    projects,
    results,  # noqa: F401 - results stand apart
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
"""Test cases stand before projects: a project's name may hold a slash. Results, asked for most, stand apart."""
