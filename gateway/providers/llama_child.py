"""The embedded model's own process: llama.cpp behind a loopback port. Run as a script, it imports nothing of ours.

Its parent writes one line of JSON to its input, and it answers with one line `{"url": …}`
once the model is loaded. The end of its input is its order to go.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1
_ERRORS_ONLY = 1


def main() -> None:
    """Serve until the parent says go, or is gone."""
    # The terminal's Ctrl-C is for the parent: it closes us after its last answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        return
    order = json.loads(line)
    _die_with(order["parent"])
    # What llama.cpp prints must not reach the line our parent reads.
    answer = os.dup(1)
    os.dup2(2, 1)
    watch = threading.Thread(target=_leave_at_end_of_input)
    watch.start()
    try:
        server = _serve(order)
    except Exception as error:  # noqa: BLE001, RUF100 (whatever it was, the parent tells it)
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    os.write(answer, json.dumps({"url": server.listening_address}).encode() + b"\n")
    watch.join()


def _leave_at_end_of_input() -> None:
    sys.stdin.buffer.read()
    # Nothing is worth tidying, and llama.cpp's destructor can wait for ever.
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent: a fork of the parent may hold our input open."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _threads() -> int:
    """Cores this process may use, without the second half that hyper-threading only pretends."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return cores if cores <= 2 else min(8, max(2, cores // 2))


def _serve(order: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = order["path"]
    params.model_alias = {order["model"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Any page in a local browser can reach a loopback port: only our parent knows the key.
    params.api_keys = [order["key"]]
    params.cors_origins = ""
    params.ui = params.endpoint_slots = False
    params.verbosity = _ERRORS_ONLY
    params.n_parallel = order["slots"]
    params.n_ctx = order["slots"] * order["context"]
    params.n_threads_http = 32
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.n_gpu_layers = 0
    # Or it shrinks the context, without a word, to what memory seems free.
    params.fit_params = False
    # One server for text and vectors. A text to embed must fit one batch: mean pooling sees it whole.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.n_batch = params.n_ubatch = order["embedding_context"]
    # Its default keeps up to 8 GiB of old prompts; warming up doubles the time to load.
    params.cache_ram_mib = 0
    params.cache_idle_slots = params.warmup = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
