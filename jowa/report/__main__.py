"""``python -m jowa.report RESULTS``: the results of the suite as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from jowa.errors import UsageError, command
from jowa.games import get_game
from jowa.options import parse_options


@dataclass(frozen=True)
class ReportConfig:
    """Write one self-contained HTML page, and Markdown, of what the suite measured."""

    results: tyro.conf.Positional[Path]
    """Folder of the suite, or of its results."""
    out: Path = Path("report")
    """Folder to write index.html, report.md and the JSON files that numbers lead to."""
    media: Path | None = None
    """Folder of PNG, GIF and WebP files to show; default: media in the suite's folder, where there is one."""
    agent: Path | None = None
    """Agent that films of play and imagined rollouts are made of: its folder, demo (the one that comes with jowa), or
    owner/name on the Hugging Face hub."""
    games: tuple[str, ...] = ()
    """With --agent: games to film; none: those that the agent was trained on."""
    seconds: float = 10.0
    """With --agent: length of a film."""
    seed: int = 0
    """With --agent: seed of the environments."""
    title: str = "JOWA: what the suite measured"
    """Heading of the page."""

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be reported with."""
        for game in self.games:
            get_game(game)
        if not 0 < self.seconds <= 60:
            raise UsageError(f"seconds is {self.seconds}, expected above 0 and at most 60: set --seconds")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}, expected at least 0: set --seed")
        if self.agent is not None and self.media is not None:
            raise UsageError("pictures come from --agent or from --media, not from both: leave one out")


def report(config: ReportConfig) -> Path:
    """Read, compare, draw, write; returns the page's path."""
    config.check()
    from jowa.report.build import build_report, results_folder, write_report
    from jowa.report.media import found_pictures, made_pictures
    from jowa.suite.results import read_results

    folder = results_folder(config.results)
    results = read_results(folder)
    media = config.media or (config.results / "media" if (config.results / "media").is_dir() else None)
    if config.agent is not None:
        galleries = made_pictures(config.agent, config.games, config.seconds, config.seed)
    else:
        galleries = () if media is None else found_pictures(media)
    return write_report(config.out, build_report(results, galleries, config.title), results, folder)


@command
def main() -> None:
    """Entry point."""
    path = report(parse_options(ReportConfig, "python -m jowa.report"))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
