"""What keys, limits and budgets cost: chat of a key that has all of them, beside chat that has none, in one server."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.bench.measure import CHAT_BODY, CHAT_CALLERS, Sample, generate, wrong_with
from gateway.bench.process import Unavailable, environment
from gateway.bench.servers import ADMIN_KEY, Promptyard, Started

_BARE = "  bare: {deployments: [{provider: standin, model: standin-1}]}\n"
_PRICES = "prices: {standin/standin-1: {input: 0.5, output: 1.5}}\n"
_LIMITS = ("--rpm", "100000000", "--tpm", "2000000000", "--concurrency", "100000", "--max-budget", "1000000")


@dataclass(frozen=True)
class Metered(Promptyard):
    """Our server with a price on its route and a budget on its key; its counters in Redis, where that is named."""

    model: bool = False
    redis_url: str | None = None

    def env(self) -> dict[str, str]:
        """Its settings (`Promptyard.env`)."""
        return super().env() | ({} if self.redis_url is None else {"PROMPTYARD_REDIS_URL": self.redis_url})

    def prepare(self, folder: Path, standin: str, tls: tuple[str, Path] | None = None) -> None:
        """Write what `launch` needs, a route without limits too (`Promptyard.prepare`)."""
        super().prepare(folder, standin, tls)
        (folder / "config").mkdir()
        (folder / "config" / "prices.yaml").write_text(_PRICES)
        with (folder / "routes.yaml").open("a") as file:
            file.write(_BARE)

    def create_key(self, folder: Path) -> str:
        """A key with everything (`Promptyard.create_key`)."""
        command = [*self.command(folder, 0)[:3], "keys", "create", "--name", "bench", *_LIMITS, "--json"]
        done = subprocess.run(
            [*command, "--data", str(folder / "data")],
            capture_output=True, text=True, check=False, cwd=folder, env=environment(self.env()),
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"keys create failed: {done.stderr.strip()[-300:]}")
        return str(json.loads(done.stdout)["key"])


def machinery(name: str, server: Started, seconds: float) -> Sample:
    """Per cent of answers a second that it takes to claim and settle all there is, of a server that does neither."""
    full, bare = json.dumps(CHAT_BODY).encode(), json.dumps({**CHAT_BODY, "model": "bare"}).encode()
    free = replace(server, key=ADMIN_KEY)
    rates: dict[bytes, float] = {full: 0.0, bare: 0.0}
    wrong = None
    generate(server, full, "chat", CHAT_CALLERS, 1.0)
    for body, asker in ((bare, free), (full, server)) * 2:  # in turn, so that a slow moment hits both
        result = generate(asker, body, "chat", CHAT_CALLERS, seconds / 2)
        wrong = wrong or wrong_with(result, result.answers)
        rates[body] += result.rate / 2
    return Sample({name: 100 * (1 - rates[full] / rates[bare])} if rates[bare] else {}, wrong)
