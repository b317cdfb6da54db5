"""The last thousand decisions, packed small, and how one of them becomes what the panels draw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jowa.dream.world import Start
from jowa.games import get_game
from jowa.viewer.commands import Mode
from jowa.viewer.events import Hindsight, Moment, Path, Trace, Tree
from jowa.viewer.mind import Thought
from jowa.viewer.worlds import Packed, RealWorld, World

LENGTH = 1_000
"""Decisions that are remembered."""
TREE_BYTES = 24 * 2**20
"""Memory for what was imagined at them; beyond it the oldest decisions keep their plans' actions and scores only."""
MOST_FRAMES = 96
"""Imagined frames of one decision that are decoded."""


@dataclass
class Course:
    """One episode, dream or replay under way."""

    world: World
    episode: int
    seed: int
    step: int = 0
    score: float = 0.0
    memory: tuple[tuple[NDArray[np.int64], int], ...] = ()
    log: list[tuple[Packed, int, float]] = field(default_factory=list)
    """Of the real game: frame, action, reward of each step."""
    persons: bool = False
    """Whether the person played any of it."""
    ended: bool = False
    recorded: NDArray[np.float32] | None = None
    """Of a replay: all its rewards."""


@dataclass
class Record:
    """One decision as it is remembered."""

    index: int
    course: Course
    step: int
    mode: Mode
    who: str
    screen: Packed
    frame: Packed
    thought: Thought
    reward: float
    """That led here."""
    score: float
    ended: bool
    saved: Any
    """Of the world, to go on from here."""
    came_true: dict[int, tuple[int, float]]
    """Steps ago: (node of that decision's tree, share of tokens that came true)."""
    taken: int | None = None
    episode: int = 0

    @property
    def tree_bytes(self) -> int:
        """Memory that the imagined nodes take."""
        return sum(array.nbytes for array in self.thought.nodes.values())


class History:
    """Records by their index, which never stops counting."""

    def __init__(self, length: int = LENGTH, tree_bytes: int = TREE_BYTES) -> None:
        self._records: deque[Record] = deque(maxlen=length)
        self._tree_bytes, self._most_tree_bytes = 0, tree_bytes
        self._bare = 0
        """Records before this index have lost their trees."""

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def oldest(self) -> int:
        """Index of the oldest record."""
        return self._records[0].index

    @property
    def newest(self) -> int:
        """Index of the newest record; -1 without any."""
        return self._records[-1].index if self._records else -1

    def get(self, index: int) -> Record:
        """The record of that index, or the nearest there is."""
        return self._records[min(max(index - self.oldest, 0), len(self._records) - 1)]

    def append(self, record: Record) -> None:
        """Add the newest record; the oldest fall out."""
        if len(self._records) == self._records.maxlen:
            self._tree_bytes -= self._records[0].tree_bytes
        if not self._records:
            self._bare = record.index
        self._records.append(record)
        self._tree_bytes += record.tree_bytes
        self._bare = max(self._bare, self.oldest)
        while self._tree_bytes > self._most_tree_bytes and self._bare < record.index:
            old = self.get(self._bare)
            self._tree_bytes -= old.tree_bytes
            old.thought = _without_tree(old.thought)
            self._tree_bytes += old.tree_bytes
            self._bare += 1

    def drop_after(self, index: int) -> None:
        """Forget every record newer than ``index``."""
        while self._records and self._records[-1].index > index:
            self._tree_bytes -= self._records.pop().tree_bytes
        self._bare = min(self._bare, index + 1)

    def drop_course(self, course: Course) -> None:
        """Forget the newest records as far as they are of ``course``."""
        while self._records and self._records[-1].course is course:
            self.drop_after(self.newest - 1)

    def came_true(self, course: Course, step: int, tokens: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
        """For a new record: what earlier decisions imagined of it, along the actions that were taken since."""
        found: dict[int, tuple[int, float]] = {}
        taken: list[int] = []
        for steps in range(1, min(len(self._records), 16) + 1):
            past = self._records[-steps]
            if past.course is not course or past.step != step - steps or past.taken is None:
                break
            taken.insert(0, past.taken)
            node = -1
            for action in taken:
                node = past.thought.child(node, action)
                if node < 0:
                    break
            if node >= 0:
                same = past.thought.nodes["tokens"][node] == tokens
                found[steps] = node, float(same.mean())
        return found


def _without_tree(thought: Thought) -> Thought:
    return replace(thought, nodes={name: array[:0] for name, array in thought.nodes.items()})


def moment_of(history: History, record: Record, who: str, action: int) -> Moment:
    """``record`` as the panels draw it: frames unpacked and decoded; ``who`` does ``action``, or did."""
    thought = record.thought
    paths = _paths(thought)
    order = _most_interesting(thought, paths)
    hindsight = _imagined_before(history, record)
    decoded = thought.agent.decode(np.concatenate([
        thought.tokens[None], *(tokens[None] for _, tokens, _, _ in hindsight if tokens is not None),
        thought.nodes["tokens"][order],
    ]))  # fmt: skip
    before = sum(tokens is not None for _, tokens, _, _ in hindsight)
    looks_back, used = [], 1
    for steps, tokens, share, mean in hindsight:
        frame = None if tokens is None else decoded[used]
        used += tokens is not None
        right = None if tokens is None else tokens == thought.tokens
        looks_back.append(Hindsight(steps, frame, right, share, mean))
    return Moment(
        index=record.index, episode=record.episode, step=record.step, mode=record.mode, game=record.course.world.game,
        who=who, screen=record.screen.array(), frame=record.frame.array(), reconstruction=decoded[0],
        legal=get_game(record.course.world.game).action_mask, q=thought.q, spread=thought.spread,
        advice=thought.action, greedy=thought.greedy, plan_score=thought.score, taken=record.taken,
        action=action,
        reward=record.reward, score=record.score, ended=record.ended, seconds=thought.seconds,
        planner=thought.config, context=len(thought.memory) + 1,
        tree=_tree(thought, paths, order, decoded[1 + before :]), hindsight=tuple(looks_back),
        trace=trace_of(history), oldest=history.oldest, newest=history.newest, recorded=record.course.recorded,
    )  # fmt: skip


def dream_start(record: Record, longest: int) -> Start:
    """Where a dream of ``record`` begins: at most ``longest`` frames of the real game up to it; elsewhere its own."""
    course = record.course
    log = course.log[max(record.step + 1 - longest, 0) : record.step] if isinstance(course.world, RealWorld) else []
    frames = [*(frame.array() for frame, _, _ in log), record.frame.array()]
    return Start(np.stack(frames), np.array([action for _, action, _ in log], dtype=np.int64))


def trace_of(history: History) -> Trace:
    """The records as columns."""
    records = list(history)
    episodes = np.array([record.episode for record in records])
    return Trace(
        np.array([record.index for record in records]),
        np.array([record.thought.q[record.thought.greedy] for record in records], dtype=np.float32),
        np.array([record.reward for record in records], dtype=np.float32),
        np.array([record.thought.action != record.thought.greedy for record in records]),
        np.array([record.came_true.get(1, (0, np.nan))[1] for record in records], dtype=np.float32),
        episodes,
        np.diff(episodes, prepend=-1) != 0,
        np.array([record.mode == "dream" for record in records]),
    )


def _paths(thought: Thought) -> tuple[Path, ...]:
    """Kept plans by rank with the chosen one first, then those that were pruned, the best first."""
    paths = []
    visits = thought.nodes.get("visits")
    for rank, (score, actions) in enumerate(thought.candidates):
        nodes, node = [], -1
        for action in actions:
            node = thought.child(node, action)
            if node < 0:
                break
            nodes.append(node)
        count = None if visits is None or not nodes else int(visits[nodes[0]])
        paths.append(Path(tuple(nodes), actions, score, rank, count))
    if visits is None:
        kept = {path.nodes[-1] for path in paths if path.nodes}
        parents = thought.nodes["parent"]
        leaves = np.setdiff1d(np.arange(len(parents)), parents)
        pruned = [int(leaf) for leaf in leaves if int(leaf) not in kept]
        for leaf in sorted(
            pruned, key=lambda node: (-int(thought.nodes["depth"][node]), -thought.nodes["score"][node])
        ):
            nodes = [leaf]
            while parents[nodes[0]] >= 0:
                nodes.insert(0, int(parents[nodes[0]]))
            actions = tuple(int(thought.nodes["action"][node]) for node in nodes)
            paths.append(Path(tuple(nodes), actions, float(thought.nodes["score"][leaf]), -1, None))
    return tuple(paths)


def _most_interesting(thought: Thought, paths: tuple[Path, ...]) -> NDArray[np.int64]:
    """The nodes to decode: those of the paths, then the most visited or the earliest."""
    count = len(thought.nodes["parent"])
    on_paths = dict.fromkeys(node for path in paths for node in path.nodes)
    visits = thought.nodes.get("visits")
    rest = np.arange(count) if visits is None else np.argsort(-visits, kind="stable")
    order = list(dict.fromkeys([*on_paths, *rest.tolist()]))
    return np.array(order[:MOST_FRAMES], dtype=np.int64)


def _tree(
    thought: Thought, paths: tuple[Path, ...], order: NDArray[np.int64], frames: NDArray[np.uint8]
) -> Tree | None:
    nodes = thought.nodes
    if not len(nodes["parent"]):
        return None
    frame_of = np.full(len(nodes["parent"]), -1)
    frame_of[order] = np.arange(len(order))
    return Tree(
        nodes["parent"].astype(np.int64), nodes["depth"].astype(np.int64) - int(nodes["depth"].min()) + 1,
        nodes["action"].astype(np.int64), nodes["reward"], nodes["ended"], nodes["value"], nodes["score"],
        nodes.get("visits"), paths, frames, frame_of,
    )  # fmt: skip


def _imagined_before(
    history: History, record: Record
) -> list[tuple[int, NDArray[np.uint16] | None, float | None, float | None]]:
    """(steps ago, imagined tokens, share that came true, its mean over the last hundred) for each depth."""
    recent = [other for other in history if record.index - 100 < other.index <= record.index]
    found = []
    deepest = max((steps for other in recent for steps in other.came_true), default=0)
    for steps in range(1, deepest + 1):
        shares = [other.came_true[steps][1] for other in recent if steps in other.came_true]
        mean = float(np.mean(shares)) if shares else None
        tokens, share = None, None
        past = record.index - steps
        if steps in record.came_true and past >= history.oldest:
            node, share = record.came_true[steps]
            imagined = history.get(past).thought.nodes["tokens"]
            tokens = imagined[node] if node < len(imagined) else None
        found.append((steps, tokens, share, mean))
    return found
