"""``/v2.1``: the API of the legacy framework."""

from fastapi import APIRouter

from proctor_api.routes.legacy import testcases, testplans

ROUTERS: tuple[APIRouter, ...] = (testcases.routes, testplans.routes)
