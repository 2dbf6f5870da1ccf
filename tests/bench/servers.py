"""The servers under test: ours and the peers, each installed, configured and started the way its manual says."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.bench.process import Child, Unavailable, environment
from tests.services.process import free_port

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "bench"
ADMIN_KEY = "admin-key-of-the-bench"
ROUTE = "chat"

OUR_ROUTES = """\
providers:
  standin: {{type: openai_compatible, base_url: "{url}/v1", api_key: "${{STANDIN_KEY}}"}}
  local: {{type: embedded}}
{tls_provider}routes:
  chat:
    deployments: [{{provider: standin, model: standin-1}}]
    limits: {{rpm: 100000000, tpm: 2000000000, concurrency: 100000}}
  local:
    deployments: [{{provider: local, model: smollm2}}]
{tls_route}"""
TLS_ROUTE = "chat-tls"
TLS_PROVIDER = (
    '  tls: {{type: openai_compatible, base_url: "{url}/v1", api_key: "${{STANDIN_KEY}}", ca_bundle: "{ca}"}}\n'
)
TLS_DEPLOYMENT = f"  {TLS_ROUTE}: {{deployments: [{{provider: tls, model: standin-1}}]}}\n"
MLFLOW_CONFIG = """\
endpoints:
  - name: chat
    endpoint_type: llm/v1/chat
    model:
      provider: openai
      name: standin-1
      config: {{openai_api_key: sk-standin, openai_api_base: "{url}/v1"}}
"""
LITELLM_CONFIG = """\
model_list:
  - model_name: chat
    litellm_params: {{model: openai/standin-1, api_base: "{url}/v1", api_key: sk-standin}}
general_settings: {{master_key: sk-bench-master}}
"""


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


class Promptyard:
    """Our own server with everything on that a deployment has on."""

    name = "promptyard"
    features = (
        "virtual key with rpm, tpm and concurrency; the route's limits besides; usage records in SQLite; "
        "a log line a call; lab, tracking and embedded model loaded"
    )

    def version(self) -> str:
        """What `promptyard --version` says, as far as it is a number."""
        done = subprocess.run([_beside("promptyard"), "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\w+)+", done.stdout)
        return found.group() if found else "?"

    def command(self, folder: Path, port: int) -> list[str]:
        """The command line that serves on `port` with data and routes in `folder`."""
        return [_beside("promptyard"), "serve", "--config", str(folder / "routes.yaml"), "--port", str(port),
                "--data", str(folder / "data")]  # fmt: skip

    def env(self) -> dict[str, str]:
        """Its settings."""
        return {"PROMPTYARD_ADMIN_KEY": ADMIN_KEY, "STANDIN_KEY": "sk-standin"}

    def prepare(self, folder: Path, standin: str, tls: tuple[str, Path] | None = None) -> None:
        """Write what `launch` needs into an empty `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "routes.yaml").write_text(_routes(standin, tls))

    def launch(self, folder: Path, core: int) -> Child:
        """The process, not waited for."""
        port = free_port()
        return Child(self.command(folder, port), core=core, log=folder / "log", env=self.env(), cwd=folder,
                     url=f"http://127.0.0.1:{port}")  # fmt: skip

    def create_key(self, folder: Path) -> str:
        """A virtual key with limits that count but never refuse, made by the command line."""
        done = subprocess.run(
            [_beside("promptyard"), "keys", "create", "--name", "bench", "--rpm", "100000000", "--tpm", "2000000000",
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


class MLflow:
    """MLflow's AI gateway, the server of `mlflow gateway start`."""

    name = "mlflow"
    features = "no keys, no limits, no usage records (it has none here); one worker"

    def version(self) -> str:
        """The pinned version."""
        return pinned(self.name, "mlflow")

    def start(self, folder: Path, standin: str, core: int) -> Started:
        """A server ready for load. It never sends `[DONE]`, so its streams are not asked for one."""
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.yaml"
        config.write_text(MLFLOW_CONFIG.format(url=standin))
        port = free_port()
        command = [str(install(self.name) / "mlflow"), "gateway", "start", "--config-path", str(config), "--host",
                   "127.0.0.1", "--port", str(port), "--workers", "1"]  # fmt: skip
        env = {"MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
        child = _started(command, folder, core, port, env, "/health")
        return Started(child, None, "undone")


class LiteLLM:
    """LiteLLM's proxy without a database."""

    name = "litellm"
    features = "master key; no limits, no database, so no usage records; telemetry off; one worker"

    def version(self) -> str:
        """The pinned version."""
        return pinned(self.name, "litellm")

    def start(self, folder: Path, standin: str, core: int) -> Started:
        """A server ready for load."""
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.yaml"
        config.write_text(LITELLM_CONFIG.format(url=standin))
        port = free_port()
        command = [str(install(self.name) / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port",
                   str(port), "--num_workers", "1", "--telemetry", "False"]  # fmt: skip
        env = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
               "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True", "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
               "LITELLM_LOCAL_BLOG_POSTS": "True", "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True"}  # fmt: skip
        child = _started(command, folder, core, port, env, "/health/liveliness")
        return Started(child, "sk-bench-master")


Server = Promptyard | MLflow | LiteLLM
PEERS: dict[str, Server] = {"mlflow": MLflow(), "litellm": LiteLLM()}


def start_standin(folder: Path, core: int) -> Started:
    """The stand-in provider in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    port, tls_port = free_port(), free_port()
    command = [sys.executable, "-m", "tests.bench.standin", "--port", str(port)]
    certificate = _certificate(folder)
    if certificate is not None:
        command += ["--tls-port", str(tls_port), "--tls", str(certificate)]
    tls = (f"https://127.0.0.1:{tls_port}", certificate) if certificate else None
    return Started(_started(command, folder, core, port, {}, "/health", cwd=ROOT), None, tls=tls)


def _certificate(folder: Path) -> Path | None:
    """A key for 127.0.0.1 and its certificate, in one file; None where there is no openssl to make them."""
    file = folder / "tls.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(file), "-out", str(folder / "tls.crt")]
    try:
        subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    file.write_bytes(file.read_bytes() + (folder / "tls.crt").read_bytes())
    return file


def _routes(standin: str, tls: tuple[str, Path] | None) -> str:
    provider, route = "", ""
    if tls is not None:
        provider, route = TLS_PROVIDER.format(url=tls[0], ca=tls[1]), TLS_DEPLOYMENT
    return OUR_ROUTES.format(url=standin, tls_provider=provider, tls_route=route)


def pinned(peer: str, package: str) -> str:
    """The version of `package` in the peer's requirements."""
    found = re.search(rf"^{package}==(\S+)", _requirements(peer).read_text(), re.MULTILINE)
    return found.group(1) if found else "?"


def install(peer: str) -> Path:
    """The `bin` of the peer's own environment, made by the first run. Raises `Unavailable` where pip cannot."""
    wanted = hashlib.sha256(_requirements(peer).read_bytes() + sys.version.encode()).hexdigest()
    home = CACHE / peer
    stamp = home / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {peer} {pinned(peer, peer)} into its own environment", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                   "-r", str(_requirements(peer))]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"pip could not install it: {' '.join(done.stderr.split())[-300:]}")
        stamp.write_text(wanted)
    return home / "bin"


def _requirements(peer: str) -> Path:
    return Path(__file__).parent / "peers" / f"{peer}.txt"


def _beside(program: str) -> str:
    return str(Path(sys.executable).parent / program)


def _started(
    command: list[str], folder: Path, core: int, port: int, env: dict[str, str], path: str, cwd: Path | None = None
) -> Child:
    child = Child(command, core=core, log=folder / "log", env=env, cwd=cwd or folder, url=f"http://127.0.0.1:{port}")
    try:
        child.wait_for(path)
    except BaseException:
        child.end()
        raise
    return child
