"""Where OpenTelemetry's exporters, MLflow's among them, send spans."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from promptlab import otlp
from promptlab.api.wire import guarded, read_body
from promptlab.errors import NotConvertible
from promptlab.lab import Lab

_EXPERIMENT, _RUN = "x-mlflow-experiment-id", "x-mlflow-run-id"


def raw(lab: Lab) -> APIRouter:
    """`POST /v1/traces`: a batch of spans, kept as a whole or refused as a whole."""

    @guarded
    async def export(request: Request) -> Response:
        experiment_id = request.headers.get(_EXPERIMENT, "")
        if not experiment_id:
            raise NotConvertible(f"The header '{_EXPERIMENT}' is missing: it says which experiment the spans are of")
        content_type = request.headers.get("content-type", "")
        encoding = request.headers.get("content-encoding", "")
        body = await read_body(request)

        def keep() -> None:
            spans = otlp.read(otlp.inflate(body, encoding), content_type)
            if spans:
                lab.traces.log_spans(experiment_id, spans, request.headers.get(_RUN))

        await to_thread.run_sync(keep)
        # An empty `ExportTraceServiceResponse`, in the form in which the batch came.
        if content_type.partition(";")[0].strip().lower() == otlp.JSON:
            return Response(b"{}", media_type=otlp.JSON)
        return Response(b"", media_type=otlp.PROTOBUF)

    router = APIRouter()
    router.add_api_route("/v1/traces", export, methods=["POST"], response_model=None)
    return router
