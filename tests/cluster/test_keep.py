"""What a submitted command prints is passed on and kept, whatever becomes of it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = """
import signal, sys, time
def end(*_):
    print("saving", flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(60)
"""


def started(log: Path, *words: str, retries: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cluster.keep", str(log), str(retries), sys.executable, "-c", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_the_exit_code_and_every_line_come_through(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "job.log"
    run = started(log, "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)")
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 3
    assert sorted(log.read_text().splitlines()) == ["one", "two"]
    assert log.read_text() == out


@pytest.mark.parametrize(("code", "retries"), [(130, 0), (1, 3)])
def test_who_is_told_to_stop_has_its_last_words_kept_and_no_other_try(tmp_path: Path, code: int, retries: int) -> None:
    """As Ray's jobs are stopped: a signal to every process."""
    run = started(tmp_path / "log", SLOW.replace("130", str(code)), retries=retries)
    assert run.stdout
    assert run.stdout.readline() == "ready\n"
    for line in subprocess.check_output(["ps", "-o", "pid=", "-s", str(run.pid)], text=True).split():
        subprocess.run(["kill", "-TERM", line], check=False)
    assert run.wait(30) == code
    assert (tmp_path / "log").read_text() == "ready\nsaving\n"


def test_a_killed_command_ends_as_a_shell_would_say(tmp_path: Path) -> None:
    run = started(tmp_path / "log", "import os; os.kill(os.getpid(), 9)")
    assert run.wait(30) == 128 + signal.SIGKILL


def test_storage_that_fails_costs_the_log_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = started(tmp_path / "file" / "log", "print('done')")
    out, _ = run.communicate(timeout=30)
    assert run.returncode == 0
    assert out.startswith("done\n")
    assert "this output could not be kept" in out


DIES_TWICE = """
import os, pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
print("try", len(tries.read_text()), flush=True)
if len(tries.read_text()) < 3:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("retries", "code", "tries"), [(0, 137, 1), (1, 137, 2), (5, 0, 3)])
def test_what_dies_is_run_again_as_often_as_was_said(tmp_path: Path, retries: int, code: int, tries: int) -> None:
    run = started(tmp_path / "log", DIES_TWICE, str(tmp_path / "tries"), retries=retries)
    assert run.wait(60) == code
    said = (tmp_path / "log").read_text()
    assert [line for line in said.splitlines() if line.startswith("try")] == [f"try {n + 1}" for n in range(tries)]
    assert said.count("ended with exit code 137") == tries - 1


@pytest.mark.parametrize("code", [2, 3, 130])
def test_what_another_try_would_only_repeat_is_not_run_again(tmp_path: Path, code: int) -> None:
    run = started(tmp_path / "log", f"print('once'); raise SystemExit({code})", retries=3)
    assert run.wait(60) == code
    assert (tmp_path / "log").read_text() == "once\n"
