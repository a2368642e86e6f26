"""``/versions``"""

from fastapi import Response

from proctor_api.routes.testapi.door import Router, answer, reads

router = Router()
routes = router.routes


@router.get("/versions", "The versions of the Test API", reads())
async def list_versions() -> Response:
    """There is one."""
    return answer({"versions": [{"version": "v1.0", "description": "basics"}]})
