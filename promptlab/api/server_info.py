"""Who we are, as MLflow's clients ask it before they use newer features."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from promptlab.api.wire import Arguments, Endpoints
from promptlab.lab import Lab

# The release whose protocol this server speaks. Clients parse it to decide what they may use:
# below 3.4 they would write traces as artifacts instead of sending them.
MLFLOW_VERSION = "3.17.2"

_INFO = {
    "store_type": "SqlStore",
    "workspaces_enabled": False,
    "trace_archival_enabled": False,
    "multipart_uploads_enabled": False,
    "multipart_downloads_enabled": False,
    "presigned_upload_run_id_supported": False,
    "presigned_upload_model_id_supported": False,
    "features_enabled": {"gateway": False},
}

served = Endpoints()


@served.get("server-info", {}, version="3.0")
def server_info(_lab: Lab, _call: Arguments) -> Any:
    """What kind of store this server keeps, as newer clients ask before their first call."""
    return _INFO


def plain() -> APIRouter:
    """`/health` and `/version`, in plain text."""
    router = APIRouter()
    router.add_api_route("/health", lambda: PlainTextResponse("OK"), methods=["GET"], response_model=None)
    router.add_api_route("/version", lambda: PlainTextResponse(MLFLOW_VERSION), methods=["GET"], response_model=None)
    return router
