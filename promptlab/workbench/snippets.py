"""What a page did, written out so that it can be repeated elsewhere. Keys are never in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pprint import pformat
from typing import Any

from promptlab.workbench.form import Form

_KEY = "PROMPTYARD_KEY"


def calls(form: Form, address: str) -> list[dict[str, str]]:
    """For each route: its name and the call as curl, Python and MLflow text. `address` is the server's own."""
    return [
        {
            "route": route,
            "curl": curl(form.call(route), address),
            "Python": python(form.call(route), address),
            "MLflow": mlflow(form, route, address),
        }
        for route in form.routes
    ]


def curl(body: dict[str, Any], address: str) -> str:
    """The call as a shell command."""
    return _posted(f"{address}/v1/chat/completions", body)


def python(body: dict[str, Any], address: str) -> str:
    """The call with OpenAI's own client."""
    arguments = "".join(f"    {name}={_literal(value)},\n" for name, value in body.items())
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{address}/v1", api_key=os.environ.get("{_KEY}", "none"))\n'
        f"answer = client.chat.completions.create(\n{arguments})\n"
        "print(answer.choices[0].message.content)"
    )


def mlflow(form: Form, route: str, address: str) -> str:
    """The call with OpenAI's client, logged as a run with MLflow's."""
    params = {"model_route": route, "prompt_template": form.template, **form.parameters()}
    return (
        "import os\nimport mlflow\nfrom openai import OpenAI\n\n"
        f'mlflow.set_tracking_uri("{address}")\nmlflow.set_experiment("Playground")\n'
        f'client = OpenAI(base_url="{address}/v1", api_key=os.environ.get("{_KEY}", "none"))\n\n'
        f"template = {_literal(form.template)}\nvalues = {_literal(form.used_values)}\n"
        f"body = {_literal(form.call(route))}\n\n"
        "with mlflow.start_run():\n"
        f"    mlflow.log_params({_literal(params)})\n"
        "    answer = client.chat.completions.create(**body)\n"
        '    row = {**values, "prompt": body["messages"][-1]["content"], "output": answer.choices[0].message.content}\n'
        "    mlflow.log_table(data={name: [value] for name, value in row.items()},\n"
        '                     artifact_file="eval_results_table.json")\n'
        '    mlflow.log_metric("output_tokens", answer.usage.completion_tokens)'
    )


def search(experiment: str, filter_text: str, order_by: str, address: str) -> list[dict[str, str]]:
    """A search for runs as curl and MLflow text."""
    body: dict[str, Any] = {"experiment_ids": [experiment]}
    body |= {"filter": filter_text} if filter_text else {}
    body |= {"order_by": [order_by]} if order_by else {}
    arguments = {"experiment_ids": [experiment], "filter_string": filter_text, "order_by": body.get("order_by")}
    given = "".join(f"    {name}={_literal(value)},\n" for name, value in arguments.items() if value)
    return [
        {
            "curl": _posted(f"{address}/api/2.0/mlflow/runs/search", body),
            "MLflow": (
                f'# The key goes into the environment: export MLFLOW_TRACKING_TOKEN="${_KEY}"\n'
                f'import mlflow\n\nmlflow.set_tracking_uri("{address}")\n'
                f"runs = mlflow.search_runs(\n{given})\nprint(runs)"
            ),
        }
    ]


def traces(experiment: str, filter_text: str, trace: str, address: str) -> list[dict[str, str]]:
    """The chosen trace, or a search for traces, as curl and MLflow text."""
    key = f'# The key goes into the environment: export MLFLOW_TRACKING_TOKEN="${_KEY}"\n'
    start = f'{key}import mlflow\n\nmlflow.set_tracking_uri("{address}")\n'
    if trace:
        url = f"{address}/api/3.0/mlflow/traces/get?trace_id={trace}"
        found = f'trace = mlflow.get_trace("{trace}")\nprint(trace.data.spans)'
        return [{"curl": f'curl "{url}" \\\n  -H "Authorization: Bearer ${_KEY}"', "MLflow": start + found}]
    where = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}]
    body: dict[str, Any] = {"locations": where, **({"filter": filter_text} if filter_text else {})}
    given = f"experiment_ids={[experiment]!r}" + (f", filter_string={filter_text!r}" if filter_text else "")
    return [
        {
            "curl": _posted(f"{address}/api/3.0/mlflow/traces/search", body),
            "MLflow": f"{start}traces = mlflow.search_traces({given})\nprint(traces)",
        }
    ]


def first_trace(experiment: str, address: str) -> list[dict[str, str]]:
    """What makes traces: a program's own, those of any exporter of OpenTelemetry, and a route's calls."""
    return [
        {
            "MLflow": (
                f'# The key goes into the environment: export MLFLOW_TRACKING_TOKEN="${_KEY}"\n'
                f'import mlflow\n\nmlflow.set_tracking_uri("{address}")\n'
                f'mlflow.set_experiment(experiment_id="{experiment}")\nmlflow.openai.autolog()\n\n\n'
                '@mlflow.trace\ndef answer(question):\n    return "Hello!"\n\n\nanswer("Say hello.")'
            ),
            "OpenTelemetry": (
                f"export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={address}/v1/traces\n"
                "export OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf\n"
                f'export OTEL_EXPORTER_OTLP_HEADERS="x-mlflow-experiment-id={experiment},authorization=Bearer ${_KEY}"'
            ),
            "routes.yaml": (
                "routes:\n  chat:\n    deployments: [{provider: local, model: smollm2}]\n"
                "    trace: {experiment: chat, sample: 0.1}"
            ),
        }
    ]


def admin(method: str, path: str, body: dict[str, Any], address: str) -> list[dict[str, str]]:
    """A call of the admin API as curl and Python text."""
    url, text = f"{address}/admin/{path}", json.dumps(body, indent=2, ensure_ascii=False)
    sent = f" \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(text)}" if body else ""
    given = f", json={_literal(body)}" if body else ""
    return [
        {
            "curl": f'curl -X {method} {url} \\\n  -H "Authorization: Bearer ${_KEY}"{sent}',
            "Python": (
                "import os\n\nimport httpx\n\n"
                f'headers = {{"Authorization": "Bearer " + os.environ["{_KEY}"]}}\n'
                f'answer = httpx.request("{method}", "{url}", headers=headers{given})\n'
                "print(answer.raise_for_status().json())"
            ),
        }
    ]


def prompt(model: str, uri: str, variables: Sequence[str], address: str) -> list[dict[str, str]]:
    """A call of a registered prompt as curl and Python text, and how MLflow's client loads it."""
    body = {"model": model, "messages": [], "variables": dict.fromkeys(variables, "…")}
    return [
        {
            "curl": curl(body, address),
            "Python": python({"model": model, "messages": [], "extra_body": {"variables": body["variables"]}}, address),
            "MLflow": (
                f'# The key goes into the environment: export MLFLOW_TRACKING_TOKEN="${_KEY}"\n'
                f'import mlflow\n\nmlflow.set_tracking_uri("{address}")\n'
                f'prompt = mlflow.genai.load_prompt("{uri}")\nprint(prompt.format(**{_literal(body["variables"])}))'
            ),
        }
    ]


def first_call(secret: str, address: str) -> str:
    """What shows that a key works, as curl."""
    return f'curl {address}/v1/models -H "Authorization: Bearer {secret}"'


def _posted(url: str, body: dict[str, Any]) -> str:
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return (
        f"curl {url} \\\n"
        f'  -H "Authorization: Bearer ${_KEY}" \\\n'
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(text)}"
    )


def _literal(value: Any) -> str:
    return pformat(value, width=90, sort_dicts=False).replace("\n", "\n    ")
