"""Our server and the stand-in provider, configured and started in folders of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path

from gateway.bench.process import Child, Unavailable, environment, free_port

_PROMPTYARD = (sys.executable, "-m", "gateway.cli")
ADMIN_KEY = "admin-key-of-the-bench"
ROUTE = "chat"

OUR_ROUTES = """\
providers:
  standin: {{type: openai_compatible, base_url: "{url}/v1", api_key: "${{STANDIN_KEY}}"}}
{more_providers}routes:
  chat:
    deployments: [{{provider: standin, model: standin-1}}]
    limits: {{rpm: 100000000, tpm: 2000000000, concurrency: 100000}}
{more_routes}"""
MODEL_PROVIDER = "  local: {type: embedded}\n"
MODEL_ROUTE = "  local: {deployments: [{provider: local, model: smollm2}]}\n"
TLS_ROUTE = "chat-tls"
TLS_PROVIDER = (
    '  tls: {{type: openai_compatible, base_url: "{url}/v1", api_key: "${{STANDIN_KEY}}", ca_bundle: "{ca}"}}\n'
)
TLS_ROUTES = f"  {TLS_ROUTE}: {{deployments: [{{provider: tls, model: standin-1}}]}}\n"


@dataclass(frozen=True)
class Started:
    """A server that answers, ready for load. `check` names the test its streams must pass (`load.CHECKS`).

    `tls` is where a stand-in answers over TLS too, and the file of its certificate.
    """

    child: Child
    key: str | None
    check: str = "stream"
    tls: tuple[str, Path] | None = None

    @property
    def chat_url(self) -> str:
        """Where chat requests go."""
        return self.child.url + "/v1/chat/completions"


@dataclass(frozen=True)
class Promptyard:
    """Our own server with everything on that a deployment has on; with `model`, the embedded one too."""

    model: bool = True
    name = "promptyard"

    @property
    def features(self) -> str:
        """What is on."""
        return (
            "virtual key with rpm, tpm and concurrency; the route's limits besides; usage records in SQLite; "
            f"a log line a call; lab{' and embedded model' if self.model else ''} loaded, tracking too"
        )

    def version(self) -> str:
        """The installed version."""
        return installed("promptyard")

    def command(self, folder: Path, port: int) -> list[str]:
        """The command line that serves on `port` with data and routes in `folder`."""
        return [*_PROMPTYARD, "serve", "--config", str(folder / "routes.yaml"), "--port", str(port),
                "--data", str(folder / "data")]  # fmt: skip

    def env(self) -> dict[str, str]:
        """Its settings."""
        return {"PROMPTYARD_ADMIN_KEY": ADMIN_KEY, "STANDIN_KEY": "sk-standin"}

    def prepare(self, folder: Path, standin: str, tls: tuple[str, Path] | None = None) -> None:
        """Write what `launch` needs into an empty `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "routes.yaml").write_text(self._routes(standin, tls))

    def launch(self, folder: Path, core: int) -> Child:
        """The process, not waited for."""
        port = free_port()
        return Child(self.command(folder, port), core=core, log=folder / "log", env=self.env(), cwd=folder,
                     url=f"http://127.0.0.1:{port}")  # fmt: skip

    def create_key(self, folder: Path) -> str:
        """A virtual key with limits that count but never refuse, made by the command line."""
        done = subprocess.run(  # noqa: S603 - a command of our own
            [*_PROMPTYARD, "keys", "create", "--name", "bench", "--rpm", "100000000", "--tpm", "2000000000",
             "--concurrency", "100000", "--json", "--data", str(folder / "data")],
            capture_output=True, text=True, check=False, cwd=folder, env=environment(self.env()),
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"keys create failed: {done.stderr.strip()[-300:]}")
        return str(json.loads(done.stdout)["key"])

    def start(self, folder: Path, standin: str, core: int, tls: tuple[str, Path] | None = None) -> Started:
        """A server ready for load: lab and model loaded, a virtual key made."""
        self.prepare(folder, standin, tls)
        child = self.launch(folder, core)
        try:
            self.wait_until_loaded(child)
            return Started(child, self.create_key(folder))
        except BaseException:
            child.end()
            raise

    def _routes(self, standin: str, tls: tuple[str, Path] | None) -> str:
        providers, routes = (MODEL_PROVIDER, MODEL_ROUTE) if self.model else ("", "")
        if tls is not None:
            providers += TLS_PROVIDER.format(url=tls[0], ca=tls[1])
            routes += TLS_ROUTES
        return OUR_ROUTES.format(url=standin, more_providers=providers, more_routes=routes)

    @staticmethod
    def wait_until_loaded(child: Child) -> None:
        """Wait for all of it: the gateway calls itself ready without the lab, whose loading would be measured too."""
        child.wait_for("/health/ready", key=ADMIN_KEY, until=lambda said: said.get("lab") != "loading")
        said = child.wait_for("/health/ready", key=ADMIN_KEY)
        if said["lab"] != "ready":
            raise Unavailable(f"the lab is {said['lab']}: {child.last_words()}")

    @staticmethod
    def is_model(command: str) -> bool:
        """Whether `command` is the embedded model's child, whose memory is the model's and not the gateway's."""
        return "llama_child" in command


def start_standin(folder: Path, core: int, certificate: Path | None = None) -> Started:
    """The stand-in provider in a process of its own; over TLS too, where there is a `certificate` with its key."""
    folder.mkdir(parents=True, exist_ok=True)
    port, tls_port = free_port(), free_port()
    command = [sys.executable, "-m", "gateway.bench.standin", "--port", str(port)]
    if certificate is not None:
        command += ["--tls-port", str(tls_port), "--tls", str(certificate)]
    tls = (f"https://127.0.0.1:{tls_port}", certificate) if certificate else None
    return Started(started(command, folder, core, port, {}, "/health"), None, tls=tls)


def started(command: list[str], folder: Path, core: int, port: int, env: dict[str, str], path: str) -> Child:
    """The process of `command`, once it answers at `path`. Raises `Unavailable` where it does not."""
    child = Child(command, core=core, log=folder / "log", env=env, cwd=folder, url=f"http://127.0.0.1:{port}")
    try:
        child.wait_for(path)
    except BaseException:
        child.end()
        raise
    return child
