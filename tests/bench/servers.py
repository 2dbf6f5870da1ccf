"""The peers: each installed, configured and started the way its manual says. Ours is `gateway.bench.servers`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path

from gateway.bench.process import Unavailable, free_port
from gateway.bench.servers import Promptyard, Started, started

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "bench"
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
        child = started(command, folder, core, port, env, "/health")
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
        child = started(command, folder, core, port, env, "/health/liveliness")
        return Started(child, "sk-bench-master")


def certificate(folder: Path) -> Path | None:
    """A key for 127.0.0.1 and its certificate, in one file of `folder`; None where there is no openssl to make them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tls.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(file), "-out", str(folder / "tls.crt")]
    try:
        subprocess.run(["openssl", "req", "-x509", *made, *names], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    file.write_bytes(file.read_bytes() + (folder / "tls.crt").read_bytes())
    return file


Server = Promptyard | MLflow | LiteLLM
PEERS: dict[str, Server] = {"mlflow": MLflow(), "litellm": LiteLLM()}


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
