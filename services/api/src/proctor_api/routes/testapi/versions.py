"""``/versions``: the versions of the Test API."""

from fastapi import Response

from proctor_api.routes.testapi.base import Router, answer, reads

router = Router()
routes = router.routes
VERSIONS = {"versions": [{"version": "v1.0", "description": "basics"}]}


@router.get("/versions", "List the versions of the Test API", reads(VERSIONS))
async def list_versions() -> Response:
    """There is only v1.0."""
    return answer(VERSIONS)
