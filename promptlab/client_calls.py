"""What an evaluation calls beyond the lab: whole answers with what they cost, runs of its own making, their files."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from promptlab.artifacts import proxied_path
from promptlab.client import CallFailed, Json, Server, Visitor

#: What MLflow's clients put into one batch at most.
_METRICS, _PARAMS = 1000, 100
_ANSWER_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer and what it took: seconds, tokens, and USD where the server knows a price.

    `cost` is None where it does not. `error` says why there is none, and then nothing else is said.
    """

    text: str = ""
    tool_calls: tuple[Json, ...] = ()
    finish: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    latency: float = 0.0
    request_id: str | None = None
    deployment: str | None = None
    error: str | None = None

    def document(self) -> Json:
        """It as JSON, without what is not there."""
        known = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in known.items() if value not in (None, (), "")}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """It from its JSON."""
        return cls(**{**document, "tool_calls": tuple(document.get("tool_calls", ()))})


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a route costs, in USD a token: from its cheapest to its dearest deployment. `longest` bounds an answer."""

    input: float
    output: float
    most_input: float
    most_output: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A route as an evaluation sees it. `pricing` is None where the server does not know it."""

    name: str
    task: str
    pricing: Pricing | None
    longest: int | None


@dataclass(frozen=True, slots=True)
class RunLog:
    """What is logged on a run at once."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Caller(Visitor):
    """The calls of an evaluation, made with one key. All of them raise `CallFailed`."""

    @classmethod
    def at(cls, server: Server, key: str | None) -> Self:
        """The calls of one server."""
        return cls(server.visitor(key)._http, key)

    async def offers(self) -> dict[str, Offer]:
        """The routes this key may call, by name."""
        found = await self._call("GET", "/v1/models")
        return {entry["id"]: _offer(entry) for entry in found.get("data", ())}

    async def answer(self, body: Mapping[str, Any], *, anew: bool = False) -> Answer:
        """One chat answer, whole; of a body with `input`, its embedding as JSON.

        `anew`: not the one that a route's cache keeps.
        """
        headers = {**self._headers, "cache-control": "no-cache"} if anew else self._headers
        began = time.perf_counter()
        path = "/v1/embeddings" if "input" in body else "/v1/chat/completions"
        got = await self._answered("POST", path, json=body, headers=headers, timeout=_ANSWER_SECONDS)
        latency = time.perf_counter() - began
        try:
            document = got.json()
            if "input" in body:
                vector = json.dumps(document["data"][0]["embedding"])
                document = {**document, "choices": [{"message": {"content": vector}}]}
            return _answer(document, got.headers, latency)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise CallFailed("The server's answer cannot be read.", status=502) from error

    async def model_version(self, name: str, alias: str, version: str | None) -> Json:
        """A version of a registered model or prompt: the one of that number, else of that alias."""
        if version is not None:
            params = {"name": name, "version": version}
            found = await self._call("GET", "/api/2.0/mlflow/model-versions/get", params=params)
        else:
            params = {"name": name, "alias": alias}
            found = await self._call("GET", "/api/2.0/mlflow/registered-models/alias", params=params)
        return dict(found["model_version"])

    async def dataset_records(self, named: str) -> list[Json]:
        """Every record of an evaluation dataset, by its name or its id."""
        base = "/api/3.0/mlflow/datasets"
        page = await self._call("POST", f"{base}/search", json={"filter_string": f"name = '{named}'"})
        ids = [one["dataset_id"] for one in page.get("datasets", ())] or [named]
        found: list[Json] = []
        params = {"max_results": "1000"}
        while True:
            page = await self._call("GET", f"{base}/{quote(ids[0], safe='')}/records", params=params)
            found += json.loads(page.get("records") or "[]")
            if not page.get("next_page_token"):
                return found
            params["page_token"] = page["next_page_token"]

    # Runs

    async def begin_run(self, experiment_id: str, name: str, log: RunLog) -> tuple[str, str]:
        """The id and the artifact address of a new run with `log.tags`; params and metrics are logged at once."""
        tags = [{"key": key, "value": value} for key, value in log.tags.items()]
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": _now(), "tags": tags}
        info = (await self._track("runs/create", body))["run"]["info"]
        await self.log(info["run_id"], RunLog(log.metrics, log.params))
        return str(info["run_id"]), str(info["artifact_uri"])

    async def log(self, run_id: str, log: RunLog) -> None:
        """Log metrics, params and tags, in as many batches as it takes."""
        at = _now()
        metrics = [{"key": k, "value": v, "timestamp": at, "step": 0} for k, v in log.metrics.items()]
        params = [{"key": key, "value": value} for key, value in log.params.items()]
        tags = [{"key": key, "value": value} for key, value in log.tags.items()]
        size = _METRICS - 2 * _PARAMS
        while metrics or params or tags:
            batch = {"metrics": metrics[:size], "params": params[:_PARAMS], "tags": tags[:_PARAMS]}
            await self._track("runs/log-batch", {"run_id": run_id, **batch})
            metrics, params, tags = metrics[size:], params[_PARAMS:], tags[_PARAMS:]

    async def end_run(self, run_id: str, *, failed: bool = False) -> None:
        """Mark a run finished, or failed."""
        status = "FAILED" if failed else "FINISHED"
        await self._track("runs/update", {"run_id": run_id, "status": status, "end_time": _now()})

    async def upload(self, artifact_uri: str, path: str, content: bytes) -> None:
        """Keep `content` as a run's file at `path`. Raises where the artifacts are kept somewhere else."""
        located = proxied_path(artifact_uri, path)
        if located is None:
            raise CallFailed(f"The run's files are kept at {artifact_uri}, which this server does not serve.")
        where = f"/api/2.0/mlflow-artifacts/artifacts/{quote(located)}"
        await self._answered("PUT", where, content=content)


def columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Json:
    """A table as MLflow's `log_table` writes it, and `load_table` reads it."""
    return {"columns": list(names), "data": [list(row) for row in rows]}


def _offer(entry: Json) -> Offer:
    said = entry.get("pricing")
    pricing = None
    if isinstance(said, dict):
        pricing = Pricing(**{name: said[name] / 1e6 for name in ("input", "output", "most_input", "most_output")})
    return Offer(entry["id"], entry.get("task", "chat"), pricing, entry.get("max_output_tokens"))


def _answer(document: Json, headers: Mapping[str, str], latency: float) -> Answer:
    choice = document["choices"][0]
    message, usage = choice["message"], document.get("usage") or {}
    cost = headers.get("x-promptyard-cost")
    content = message.get("content")
    return Answer(
        text=content if isinstance(content, str) else "",
        tool_calls=tuple(message.get("tool_calls") or ()),
        finish=choice.get("finish_reason"),
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        cost=None if cost is None else float(cost),
        latency=latency,
        request_id=headers.get("x-request-id"),
        deployment=headers.get("x-promptyard-deployment"),
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
