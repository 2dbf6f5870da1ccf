"""What the journal has taken is there after a kill; what it took half is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.journal import Journal, JournalReader, Position


def everything(journal: Journal, position: Position | None = None) -> list[bytes]:
    lines, position = [], position or Position()
    while True:
        more, position = journal.read(position)
        if not more:
            return lines
        lines += more


def test_lines_come_back_in_order_and_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(b"line %d" % number)
    lines, position = journal.read(Position())
    assert lines == [b"line 0", b"line 1", b"line 2"]
    assert journal.read(position) == ([], position)
    journal.append(b"line 3")
    assert journal.read(position)[0] == [b"line 3"]
    journal.close()


def test_a_torn_last_line_is_taken_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(b"whole")
    journal.close()
    (segment,) = tmp_path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"torn": ')
    journal = Journal(tmp_path)
    journal.append(b"next")
    assert everything(journal) == [b"whole", b"next"]
    journal.close()


def test_segments_follow_each_other_and_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal._SEGMENT_SIZE", 30)
    journal = Journal(tmp_path)
    written = [b"line %02d" % number for number in range(20)]
    for line in written:
        journal.append(line)
    assert len(list(tmp_path.glob("*.jsonl"))) > 3
    assert everything(journal) == written
    position = Position()
    while True:
        lines, position = journal.read(position)
        if not lines:
            break
        journal.forget(position)
    assert len(list(tmp_path.glob("*.jsonl"))) <= 2
    journal.close()
    journal = Journal(tmp_path)
    journal.append(b"later")
    assert everything(journal, position) == [b"later"]
    journal.close()


def test_a_line_that_ends_a_segment_while_it_is_read_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal._SEGMENT_SIZE", 10)
    one = Journal(tmp_path)
    listed, waiting = Journal._segments, [b"the line that ends it"]

    def ended(self: Journal) -> list[int]:
        if waiting:
            self.append(waiting.pop())
        return listed(self)

    monkeypatch.setattr(Journal, "_segments", ended)
    lines, position = one.read(Position())
    if not lines:
        lines, _ = one.read(position)
    assert lines == [b"the line that ends it"]
    one.close()


def test_two_processes_cannot_write_one_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        Journal(tmp_path / "journal")
    journal.close()
    Journal(tmp_path / "journal").close()


def test_a_killed_process_has_lost_nothing_it_wrote(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from gateway.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1])); number = 0\n"
        "while True:\n"
        "    journal.append(b'line %d' % number); print(number, flush=True); number += 1\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(500):
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    journal = Journal(tmp_path)
    lines = everything(journal)
    assert len(lines) > told
    assert lines == [b"line %d" % number for number in range(len(lines))]
    journal.close()


def test_the_identity_stays(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.close()
    second = Journal(tmp_path)
    assert second.id == first.id
    second.close()


def test_another_process_reads_while_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.journal._SEGMENT_SIZE", 30)
    reader = JournalReader(tmp_path)
    assert reader.read(Position()) == ([], Position())
    journal = Journal(tmp_path)
    assert journal.id == reader.id
    position, seen = Position(), []
    for number in range(10):
        journal.append(b"line %d" % number)
        lines, position = reader.read(position)
        seen += lines
        assert position == journal.end or position.segment == journal.end.segment - 1
        reader.forget(position)
    assert seen == [b"line %d" % number for number in range(10)]
    assert len(list(tmp_path.glob("usage-*"))) <= 2
    with (tmp_path / f"usage-{journal.end.segment:08}.jsonl").open("ab") as torn:
        torn.write(b"half a li")
    assert reader.read(position)[0] == []
    assert reader.end >= journal.end
    journal.close()
