"""Threads begun at once under coverage, with an audit hook in Python: none is lost, and all are measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """\
import sys, threading
from tests.services.threads import trace_one_at_a_time
sys.addaudithook(lambda event, arguments: sum(range(50)))
sys.setswitchinterval(1e-6)
trace_one_at_a_time()
ran = []

def work():
    ran.append(1)

for _ in range(60):
    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(ran))
"""


def test_no_thread_is_lost_under_coverage(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={tmp_path / 'data'}", "--rcfile=/dev/null"]
    done = subprocess.run(
        [*command, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1200\n", "")
    told = subprocess.run(
        [sys.executable, "-m", "coverage", "report", "-m", f"--data-file={tmp_path / 'data'}", "--rcfile=/dev/null"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "script.py" in told.stdout
    assert " 100%" in next(line for line in told.stdout.splitlines() if "script.py" in line)
