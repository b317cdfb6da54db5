"""A child of a fake study: ``python -m fake_job OUTPUT [what]``; writes when it began and ended beside OUTPUT."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

output, what = Path(sys.argv[1]), sys.argv[2:]
output.parent.mkdir(parents=True, exist_ok=True)
tries = output.with_suffix(".tries")
tries.write_text(tries.read_text() + "+" if tries.exists() else "+")
if "die" in what:
    os.kill(os.getpid(), signal.SIGKILL)
print("at work")
if "fail" in what:
    print("something broke", file=sys.stderr)
    raise SystemExit(3)
if "forget" in what:  # ends well without its output
    raise SystemExit(0)
if "wait" in what and tries.read_text() == "+":
    try:
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        output.with_suffix(".saved").write_text("half")
        raise SystemExit(0 if "politely" in what else 130) from None
if "stubborn" in what:
    while True:
        try:
            time.sleep(10)
        except KeyboardInterrupt:
            output.with_suffix(".asked").write_text("")
began = time.monotonic()
time.sleep(0.3 if "slow" in what else 0.0)
output.with_suffix(".times").write_text(f"{began} {time.monotonic()}")
output.write_text("done")
