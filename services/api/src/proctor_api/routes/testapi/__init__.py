"""The Test API: one file a noun, all behind one door."""

from fastapi import APIRouter

from proctor_api.routes.testapi import cases, pods, projects, results, versions  # noqa: F401 - results stand apart

ROUTERS: tuple[APIRouter, ...] = (
    cases.routes,
    projects.routes,
    pods.routes,
    versions.routes,
)
"""Test cases stand before projects: a project's name may hold a slash. Results, asked for most, stand apart."""
