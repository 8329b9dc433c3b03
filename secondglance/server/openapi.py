"""The description of the interface: as FastAPI makes it, with the answers that all routes share.

The page `/docs` is our own: Swagger's would load its scripts from the network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.server import problems
from secondglance.server.schemas import Problem

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

ALWAYS = {
    400: "The request cannot be used.",
    413: "The request is too large.",
    414: "The address is too long.",
    421: "The server is not called so.",
    429: "Too many requests wait, or too many keys were wrong; Retry-After says when to come back.",
    431: "The headers are too large.",
    500: "An error inside the server.",
    503: "Not ready, too slow, or a part of the server failed.",
}
"""Answers that any route may give."""
CHANGING = {
    403: "The page of another site asked.",
    415: "The body is not JSON.",
}
KEYS = {401: "There is no API key, or a wrong one.", 403: "The page of another site asked."}
PARAMETERS = {404: "There is no such thing.", 422: "A value is not allowed."}
BODY = {422: "A value is not allowed."}
_METHODS = ("get", "head", "post", "put", "patch", "delete")
_OPEN = ("/healthz", "/readyz")


def install(app: FastAPI) -> None:
    """Makes `/openapi.json` tell every answer, and adds `/docs`."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            # Replaced as a whole: another thread may be writing the one that is there.
            app.openapi_schema = complete(made())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return docs_page(app.openapi())


def complete(schema: dict[str, Any]) -> dict[str, Any]:
    """A description with the problems of every operation, and with how keys are sent."""
    components = schema.setdefault("components", {})
    models = components.setdefault("schemas", {})
    models["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("HTTPValidationError", "ValidationError"):
        models.pop(name, None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "secondglance_PORT",
            "description": "Of the page; see /v1/session.",
        },
    }
    for path, method, operation in operations(schema):
        # Without keys none is needed: {} stands for that.
        operation["security"] = [{"bearer": []}, {"header": []}, {}]
        answers = operation.setdefault("responses", {})
        for status, said in _problems_of(path, method, operation).items():
            answers.setdefault(str(status), {"description": said})
        operation["responses"] = dict(sorted(answers.items()))
        for status, answer in answers.items():
            if status.isdigit() and int(status) >= 400:
                answer["content"] = {
                    problems.TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
                }
    return schema


def _problems_of(path: str, method: str, operation: dict[str, Any]) -> dict[int, str]:
    found = dict(ALWAYS)
    if path not in _OPEN:
        found |= KEYS
    if method not in ("get", "head"):
        found |= CHANGING
    if operation.get("parameters"):
        found |= PARAMETERS
    if operation.get("requestBody"):
        found |= BODY
    return found


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and description of each operation."""
    for path, item in schema.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                yield path, method, item[method]


def docs_page(schema: dict[str, Any]) -> HTMLResponse:
    """The description as a page without scripts, and without anything from elsewhere."""
    import jinja2
    from fastapi.responses import HTMLResponse

    folder = Path(__file__).parent / "templates"
    style = (folder / "docs.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    servers = schema.get("servers") or [{"url": ""}]
    page = environment.get_template("docs.html").render(
        info=schema["info"],
        folder=servers[0]["url"],
        style=style,
        groups=_groups(schema),
        models={
            name: json.dumps(model, indent=2, ensure_ascii=False)
            for name, model in sorted(schema["components"]["schemas"].items())
        },
    )
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return HTMLResponse(
        page, headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
    )


def _groups(schema: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the page shows of each operation, by tag."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, method, operation in operations(schema):
        shown = {
            "path": path,
            "method": method.upper(),
            "id": operation.get("operationId", ""),
            "about": operation.get("description", "").split("\n\n"),
            "parameters": operation.get("parameters", ()),
            "body": _body(schema, operation),
            "answers": operation["responses"],
            "models": _models_of(operation["responses"]),
        }
        groups.setdefault(next(iter(operation.get("tags", ())), "other"), []).append(shown)
    return groups


def _body(schema: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    kind, described = next(iter(content.items()))
    model = _name(described.get("schema", {}))
    examples = schema["components"]["schemas"].get(model, {}).get("examples", ())
    return {
        "kind": kind,
        "model": model,
        "examples": [json.dumps(example, indent=2, ensure_ascii=False) for example in examples],
    }


def _models_of(answers: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for status, answer in answers.items():
        for described in answer.get("content", {}).values():
            found[status] = found.get(status) or _name(described.get("schema", {}))
    return found


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
