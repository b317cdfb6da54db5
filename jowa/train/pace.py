"""How fast a run goes, and how much of the device it uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from jowa.devices import choose_precision
from jowa.train.config import TrainConfig
from jowa.train.distributed import Place
from jowa.train.flops import measured_ceiling, utilisation
from jowa.train.step import FIRST, IN_ROW, SKIPPED

MEASURED = {"cuda": 0.3, "cpu": 0.1}
"""Seconds for which the ceiling is measured."""
QUIET = ("_gradient_norm", SKIPPED, IN_ROW, FIRST, "usage", "perplexity", "dead_codes")
"""Ends of the names of metrics that the curves show and the line beside the progress bar does not."""


class Pace:
    """Steps a second and model FLOPs utilisation between one report of metrics and the next."""

    def __init__(
        self, config: TrainConfig, place: Place, step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config, self.place, self._clock = config, place, clock
        self._step, self._stage, self._time = step, 0, clock()
        # Now, while the device is empty: later its memory is full.
        precision = choose_precision(config.precision, place.device)
        self.ceiling = measured_ceiling(place.device, precision, MEASURED[place.device.type])
        """Operations a second that this device reaches in matrix products."""
        if place.device.type == "cuda":
            torch.cuda.empty_cache()

    def restart(self, step: int) -> None:
        """Do not count the time until now: something else than training took it."""
        self._step, self._time = step, self._clock()

    def measure(self, step: int, stage: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Of the steps since the last call; nothing across a change of stage, where data are encoded in between.

        Utilisation is for steps in which the world model trains: others are not worth counting.
        """
        now, steps = self._clock(), step - self._step
        same = stage == self._stage
        seconds = now - self._time
        self._step, self._stage, self._time = step, stage, now
        if not same or steps < 1 or seconds <= 0:
            return {}
        found = {"speed/steps_per_second": steps / seconds}
        if "frame" in metrics:
            share = utilisation(self.config, stage, seconds / steps, self.ceiling, self.place.world)
            found["speed/model_flops_utilisation"] = share
        return found


def progress_note(stage: int, metrics: Mapping[str, float], speed: Mapping[str, float]) -> str:
    """The line beside the progress bar: losses, utilisation, and skipped steps if there are any."""
    parts = [f"stage {stage}"]
    parts += [f"{name} {value:.3f}" for name, value in metrics.items() if not name.endswith(QUIET)]
    skipped = sum(value for name, value in metrics.items() if name.endswith(SKIPPED))
    parts += [f"skipped {skipped:.0f}"] if skipped else []
    share = speed.get("speed/model_flops_utilisation")
    parts += [] if share is None else [f"MFU {share:.2f}"]
    return "  ".join(parts)
