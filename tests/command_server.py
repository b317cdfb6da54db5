"""Imports the commands once, then forks a process for each that is asked for: seconds saved every time.

A line on stdin is a JSON list of jobs to run side by side: ``run`` (a module, or the path of a script),
``arguments``, ``cwd``, ``env``, ``stdout`` and ``stderr`` (files), ``largest_file`` (bytes; 0: no limit, else
writing beyond fails as on a full disk), and perhaps ``signals``, a list of [number, path, seconds] to send to it so
many seconds after the file exists, one after the other.  The answer is a line with the list of their exit codes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import resource
import runpy
import signal
import sys
import time
import traceback
import warnings
from typing import Any

TIMEOUT, GRACE = 200.0, 5.0


def run(job: dict[str, Any]) -> int:
    """The job in this process; its exit code."""
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    faulthandler.enable(2)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    if job["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"], job["largest_file"]))
    sys.argv = [job["run"], *job["arguments"]]
    try:
        if job["run"].endswith(".py"):
            runpy.run_path(job["run"], run_name="__main__")
        else:
            with warnings.catch_warnings():  # that the module was imported already is the point
                warnings.simplefilter("ignore", RuntimeWarning)
                runpy.run_module(job["run"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(job: dict[str, Any]) -> int:
    """Start the job; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = run(job)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


def signal_when_due(child: int, signals: list[list[Any]], seen: dict[int, float]) -> None:
    """Send ``child`` the first of ``signals`` if it is time; ``seen``: since when its file exists."""
    if not signals:
        return
    number, path, seconds = signals[0]
    if child not in seen and os.path.exists(path):
        seen[child] = time.monotonic()
    if child in seen and time.monotonic() - seen[child] >= seconds:
        os.kill(child, number)
        signals.pop(0)
        del seen[child]


def wait_for(children: list[int], jobs: list[dict[str, Any]]) -> list[int]:
    """Exit codes, negative for a signal; after :data:`TIMEOUT` seconds the rest says where it stands and is killed."""
    codes: dict[int, int] = {}
    seen: dict[int, float] = {}
    deadline, told = time.monotonic() + TIMEOUT, set()
    while len(codes) < len(children):
        for child, job in zip(children, jobs, strict=True):
            if child not in codes:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    codes[child] = os.waitstatus_to_exitcode(status)
                elif time.monotonic() > deadline + GRACE:
                    os.kill(child, signal.SIGKILL)
                elif time.monotonic() > deadline and child not in told:
                    told.add(child)
                    os.kill(child, signal.SIGABRT)
                else:
                    signal_when_due(child, job.get("signals", []), seen)
        time.sleep(0.005)
    return [codes[child] for child in children]


def main() -> None:
    """Serve until stdin ends."""
    commands = "train.__main__", "train.run", "evaluate.__main__", "baselines.__main__", "record"
    for name in (f"jowa.{command}" for command in commands):
        importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.flush()
        jobs = json.loads(line)
        children = [fork(job) for job in jobs]
        print(json.dumps(wait_for(children, jobs)), flush=True)


if __name__ == "__main__":
    main()
