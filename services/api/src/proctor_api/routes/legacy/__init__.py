"""``/v2.1``: the shapes of the framework that Proctor replaces."""

from fastapi import APIRouter

from proctor_api.routes.legacy import testcases, testplans

ROUTERS: tuple[APIRouter, ...] = (testcases.routes, testplans.routes)
