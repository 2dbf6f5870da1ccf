"""A server to evaluate on, and evaluations of it from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import promptlab
from promptlab.evaluation.report import Report
from tests.services.promptyard import Server

ROUTES = """\
providers:
  fake: {type: fake}
  paris: {type: fake, script: [{answer: "It is Paris, the capital of France."}]}
  slow: {type: fake, script: [{answer: "It is Paris.", delay: 0.05}]}
  tools: {type: fake, script: [{tool_call: {name: find, arguments: {city: Rome}}}]}
  dear: {type: fake, script: [{answer: It is dear., usage: {prompt_tokens: 1000, completion_tokens: 100}}]}
  moody:
    type: fake
    cycle: true
    script: [{answer: a}, {error: {status: 429, retry_after: 1}}, {error: {status: 500}}]
  counting: {type: fake, cycle: true, script: [{answer: one}, {answer: one two}, {answer: one two three}]}
  judge:
    type: fake
    cycle: true
    script:
      - {answer: '{"rationale": "So it is.", "verdict": "yes"}'}
      - {answer: '{"rationale": "It is not.", "verdict": "no"}'}
  wrong: {type: fake, script: [{error: {status: 400, message: "too long"}}]}
routes:
  echo: {deployments: [{provider: fake, model: m}]}
  paris: {deployments: [{provider: paris, model: m}]}
  slow: {deployments: [{provider: slow, model: m}]}
  tools: {deployments: [{provider: tools, model: m}]}
  dear: {deployments: [{provider: dear, model: m}]}
  moody: {deployments: [{provider: moody, model: m}]}
  wrong: {deployments: [{provider: wrong, model: m}]}
  cached: {deployments: [{provider: counting, model: m}], cache: {ttl: 60}}
  judge: {deployments: [{provider: judge, model: m}]}
  mute: {deployments: [{provider: paris, model: m}]}
  embed: {task: embeddings, deployments: [{provider: fake, model: m}]}
  unpriced: {deployments: [{provider: far, model: m}]}
"""
FAR = '  far: {type: openai_compatible, base_url: "http://127.0.0.1:9/v1"}\n'
PRICES = "prices:\n" + "".join(f"  {name}/m: {{input: 1.0, output: 2.0}}\n" for name in ("paris", "slow", "dear"))


def config(home: Path) -> Path:
    """A routes.yaml of fakes in `home`, and prices beside it; one route's price nobody knows."""
    (home / "config").mkdir()
    (home / "config" / "prices.yaml").write_text(PRICES)
    (home / "routes.yaml").write_text(ROUTES.replace("routes:\n", f"{FAR}routes:\n", 1))
    return home / "routes.yaml"


def evaluate(server: Server, tmp_path: Path, **plan: Any) -> Report:
    """A report: of one case, one prompt and one route, unless `plan` says otherwise; no runs are logged."""
    plan = {"cases": [{"q": "a", "expected": "a"}], "prompts": {"p": "{{q}}"}, "routes": "echo", "log": False, **plan}
    return promptlab.evaluate(
        **{"server": server.url, "key": server.admin_key, "answers": tmp_path / "a.jsonl", **plan}
    )


def calls(server: Server) -> tuple[int, float]:
    """How many calls the server has answered, and what they cost in USD."""
    with server.client() as http:
        total = http.get("/admin/usage").json()["total"]
    return total["calls"], total["cost_usd"]
