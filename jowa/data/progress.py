"""The progress bar of recording: steps done, rate, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

if TYPE_CHECKING:
    from jowa.data.record import RecordConfig


class _RateColumn(TextColumn):
    """Agent steps a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: RichTask) -> Text:
        return Text(f"{task.speed or 0:,.0f} steps/s")


class StepProgress:
    """One bar a game; silent when ``enabled`` is false."""

    def __init__(self, config: RecordConfig, steps: dict[str, int], enabled: bool) -> None:
        """``steps``: how many each game has already."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
            speed_estimate_period=60.0,
        )
        self._tasks: dict[str, TaskID] = {
            game: self._progress.add_task(game, total=config.steps, completed=count) for game, count in steps.items()
        }

    def advance(self, game: str, steps: int) -> None:
        """Note that ``steps`` more were committed."""
        self._progress.advance(self._tasks[game], steps)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
