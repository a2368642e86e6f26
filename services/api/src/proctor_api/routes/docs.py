"""``/docs``: Swagger UI from the installed package, without anything from other sites and without inline scripts.

URLs in pages are relative, because a proxy may serve the api below a path.
"""

from importlib.resources import files
from pathlib import Path

import orjson
from fastapi import Request, Response

from proctor_api.context import context_of
from proctor_api.http.proxies import EXTERNAL_PREFIX
from proctor_api.routes.guard import anyone, router
from proctor_api.routes.session import PAGE_POLICY
from proctor_common.errors import not_found

routes = router()

DOCS_POLICY = (
    # Swagger UI writes style attributes; scripts come from files only.
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Proctor API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/assets/favicon-32x32.png"></head>
<body><div id="swagger-ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/docs.js"></script></body></html>
"""
START_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Proctor</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="docs/assets/login.css"></head>
<body><main><h1>Proctor</h1>
<p>This is the api. Go on to:</p>
<ul><li><a href="docs">its documentation</a>, to be tried out after <a href="login">login</a></li>
<li><a href="dashboard/">the dashboard</a></li></ul>
<p>On a command line: <code>proctor --help</code>, with this address in <code>PROCTOR_URL</code>.</p>
</main></body></html>
"""
DOCS_SCRIPT = """\
window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  supportedSubmitMethods: METHODS,
});
"""
LOGIN_SCRIPT = """\
const form = document.getElementById("login");
const fault = document.getElementById("fault");
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault.textContent = "";
  try {
    const answer = await fetch("v1/session", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({token: document.getElementById("token").value.trim()}),
    });
    if (answer.ok) {
      const choices = new URLSearchParams(window.location.search);
      const next = choices.get("next");
      choices.delete("next");
      const page = choices.toString() ? `dashboard/?${choices}` : "dashboard/";
      window.location.assign(next === "dashboard" ? page : "docs");
      return;
    }
    const problem = await answer.json();
    fault.textContent = problem.detail || "The login was refused.";
  } catch (error) {
    fault.textContent = "The server does not answer. Try again in a moment.";
  }
});
"""
LOGIN_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; background: #f5f6f8; color: #1c2330; margin: 0; }
main { max-width: 24rem; margin: 15vh auto 0; padding: 2rem; background: #fff; border-radius: .5rem; }
label, input, button { display: block; width: 100%; box-sizing: border-box; }
input, button { font: inherit; padding: .5rem; margin: .25rem 0 1rem; }
button { background: #1f4fbf; color: #fff; border: 0; border-radius: .25rem; cursor: pointer; }
#fault { color: #a4161a; min-height: 1.5em; }
"""
TRYOUT = {
    "all": '["get", "put", "post", "delete", "options", "head", "patch", "trace"]',
    "read": '["get", "head", "options"]',
}
"""HTTP methods with a "Try it out" button, by the setting ``tryout``."""
OWN = {
    "login.js": (LOGIN_SCRIPT, "text/javascript"),
    "login.css": (LOGIN_STYLE, "text/css"),
}
BUNDLED = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}


@routes.get("/", include_in_schema=False, openapi_extra=anyone())
async def show_start() -> Response:
    """Where to go."""
    return Response(START_PAGE, media_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY})


@routes.get("/docs", include_in_schema=False, openapi_extra=anyone())
async def show_docs() -> Response:
    """The Swagger UI page."""
    return Response(PAGE, media_type="text/html", headers={"Content-Security-Policy": DOCS_POLICY})


@routes.get("/openapi.json", include_in_schema=False, openapi_extra=anyone())
async def show_openapi(request: Request) -> Response:
    """The OpenAPI document; behind a proxy with the path below which the api is served."""
    document, prefix = request.app.openapi(), request.scope.get(EXTERNAL_PREFIX)
    if prefix:
        document = {**document, "servers": [{"url": prefix}]}
    return Response(orjson.dumps(document), media_type="application/json")


@routes.get("/docs/assets/{name}", include_in_schema=False, openapi_extra=anyone())
async def show_asset(request: Request, name: str) -> Response:
    """A script, style sheet or image of the docs and login pages. Raises 404."""
    headers = {"Cache-Control": "public, max-age=3600", "Content-Security-Policy": PAGE_POLICY}
    if name == "docs.js":
        # Not cached, so that a changed setting shows at the next visit.
        text = DOCS_SCRIPT.replace("METHODS", TRYOUT[context_of(request).settings.tryout])
        return Response(text, media_type="text/javascript", headers={**headers, "Cache-Control": "no-cache"})
    if name in OWN:
        text, kind = OWN[name]
        return Response(text, media_type=kind, headers=headers)
    if name in BUNDLED:
        return Response((bundle() / name).read_bytes(), media_type=BUNDLED[name], headers=headers)
    raise not_found("file", name)


def bundle() -> Path:
    """The folder of the bundled Swagger UI (its name has a version)."""
    vendor = Path(str(files("swagger_ui_bundle"))) / "vendor"
    return next(path for path in sorted(vendor.iterdir(), reverse=True) if path.name.startswith("swagger-ui"))
