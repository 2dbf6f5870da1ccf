"""`/admin/config`, `/admin/reload`, `/admin/explain`: what is served, and why. Needs scope `admin`."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from gateway import changes
from gateway.api.access import Access
from gateway.api.roles import guard, visitor
from gateway.errors import ConfigError
from gateway.explain import Explainer, Question
from gateway.plane import Plane
from gateway.reload import Reloader
from gateway.store.audit import AuditStore, Deed


def router(access: Access, reloader: Reloader, explainer: Explainer, audit: AuditStore) -> APIRouter:
    """The admin API of the configuration. The handlers are coroutines: the plane belongs to the event loop."""

    api = APIRouter(tags=["configuration"], dependencies=[Depends(guard(access))])

    @api.get("/admin/config")
    async def config() -> dict[str, Any]:
        """What is served, with every default; secrets are `***`. `refused` is why the files as they are now are not."""
        refused = None if reloader.refused is None else _problems(reloader.refused)
        served = changes.described(reloader.plane.current.config)
        return {**_served(reloader), "refused": refused, **served}

    @api.post("/admin/reload", responses={400: {"description": "Every problem; what was served stays"}})
    async def reload(request: Request) -> Response:
        """Read `routes.yaml`, its secrets and prices anew, and serve what they say. Calls under way end as they began.

        Where the files cannot be understood whole, nothing changes and every problem is told.
        """
        try:
            changed = await reloader.reload("an admin asked")
        except ConfigError as error:
            told = {"message": error.message, "type": error.type, "param": None, "code": error.code}
            return JSONResponse({"error": {**told, "problems": _problems(error)}}, error.status)
        served, details = _served(reloader), changes.document(changed)
        deed = Deed(visitor(request).key.id, "config.reload", str(served["version"])[:64], details)
        await asyncio.to_thread(audit.add, deed)
        return JSONResponse({**served, "changes": details})

    @api.get("/admin/explain")
    async def explain(
        model: Annotated[str, Query(max_length=200)],
        key: Annotated[str | None, Query(max_length=200, description="A key's id or name; without one, any")] = None,
        task: Annotated[str | None, Query(max_length=100, description="As `chat/completions`")] = None,
        user: Annotated[str | None, Query(max_length=1000, description="What a sticky route goes by")] = None,
    ) -> dict[str, Any]:
        """What would become of a call: each rule, the deployment that would be asked, and why. Nothing is taken."""
        return await explainer.explain(Question(model, task, user), key)

    return api


def _served(reloader: Reloader) -> dict[str, Any]:
    plane: Plane = reloader.plane
    return {"file": str(reloader.path), "version": plane.current.version, "loaded_at": plane.current.loaded}


def _problems(error: ConfigError) -> list[dict[str, Any]]:
    """Where each problem stands, and what to do."""
    found = [dataclasses.asdict(problem) for problem in error.problems]
    return [{"file": one.pop("source"), **one} for one in found]
