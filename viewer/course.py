"""What the session does: who plays what, deciding, going back, changing modes.  Belongs to the session's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from jowa.agent import Agent
from jowa.errors import UsageError
from jowa.games import NUM_ACTIONS, get_game
from jowa.viewer import commands as told
from jowa.viewer.agents import load_agent
from jowa.viewer.commands import Command
from jowa.viewer.events import Distributions, Event, Moment, Notice, State
from jowa.viewer.export import export_moment, save_episode
from jowa.viewer.history import Course, History, Record, dream_start, moment_of, trace_of
from jowa.viewer.mind import Mind, Thought, fitting
from jowa.viewer.recording import ReplayWorld
from jowa.viewer.worlds import DreamWorld, Outcome, Packed, RealWorld, Sight

LONGEST_MEMORY = 32
"""Steps of tokens that a course carries; no model's context is longer."""


class Play:
    """State and verbs of a session; :class:`jowa.viewer.session.Session` calls them one at a time."""

    def __init__(self, state: State, emit: Callable[[Event], None]) -> None:
        self.state = state
        self.history = History()
        self.mind: Mind | None = None
        self.pressed = 0
        self.wants_distributions = False
        self._emit = emit
        self._wanted: dict[str, Any] = {}
        """Planner settings that the person chose; they outlive a change of agent and of game."""
        self._suits = ""
        """The game as whose own settings the mind plans."""
        self._real: Course | None = None
        self._course: Course | None = None
        self._sight: Sight | None = None
        self._real_sight: Sight | None = None
        self._awake: told.Mode = "play"
        """What to wake up to from a dream."""
        self._shown = -1
        self._episodes = 0

    def tell(self, **changes: Any) -> None:
        """Change the state and say so, if it changed."""
        state = replace(self.state, **changes)
        if state != self.state:
            self.state = state
            self._emit(state)

    # Agents and planners

    def use(self, agent: Agent, source: str) -> None:
        """Decide with ``agent`` from now on."""
        config, context = fitting(agent, self.state.game, self._wanted)
        self.mind, self._suits = Mind(agent, config, context), self.state.game
        self.state = replace(
            self.state, agent=source, agent_games=tuple(agent.tasks), planner=config, context=context,
            longest_context=self.mind.longest_context,
        )  # fmt: skip

    def _suit(self, game: str) -> None:
        """Plan as the agent does in ``game``, but for what the person chose."""
        assert self.mind is not None
        if game == self._suits:
            return
        config, context = fitting(self.mind.agent, game, self._wanted)
        self.mind.set_planner(config)
        self.mind.context, self._suits = context, game
        self.tell(planner=config, context=context)

    def load(self, source: str, own_game: bool) -> None:
        """Load another agent; the real game goes on with it."""
        agent = load_agent(source)
        game = self.state.game
        self.use(agent, source)
        if self.state.mode == "dream":
            self._wake("play")
        if own_game and self._real is None and agent.tasks and game not in agent.tasks:
            game = next(iter(agent.tasks))
            self.state = replace(self.state, game=game)
        elif agent.tasks and game not in agent.tasks:
            self._emit(Notice(f"This agent was not trained on {game}, only on {', '.join(agent.tasks)}"))
        self._emit(self.state)
        for course in {id(c): c for c in (self._real, self._course) if c}.values():
            course.memory = ()  # tokens of another tokenizer
        if self._course is None:
            self.begin()
        else:
            self._think_again()

    def begin(self) -> None:
        """Start the real game, if there is somebody to play it."""
        if self.mind is not None and self._course is None:
            self._new_game(self.state.game, self.state.seed)

    def forget(self) -> None:
        """Let everything go that was remembered, while the emulator's module is still there."""
        self.history = History()
        self._course = self._real = None

    # Deciding

    def advance(self, milliseconds: float | None = None) -> None:
        """Act on the newest decision, then decide anew; after the end of an episode a new one begins."""
        assert self._course is not None and len(self.history)
        record = self.history.get(self.history.newest)
        if record.course is not self._course:
            self._decide(milliseconds)
            return
        if record.ended:
            self.reset(None)
            return
        action = self._choose(record.thought)
        course = self._course
        outcome = course.world.step(action)
        record.taken = action
        if self.state.person and self.state.mode != "replay":
            record.who, course.persons = "person", True
        if isinstance(course.world, RealWorld):
            del course.log[course.step :]
            course.log.append((record.frame, action, outcome.reward))
        course.memory = (*course.memory, (record.thought.tokens, action))[-LONGEST_MEMORY:]
        course.step += 1
        course.score += outcome.reward
        course.ended = outcome.ended
        self._sight = outcome.sight
        self._decide(milliseconds, outcome)
        if outcome.ended:
            self._emit(Notice(f"Episode over: score {course.score:g} after {course.step:,} decisions"))

    def _choose(self, thought: Thought) -> int:
        world = self._course.world if self._course else None
        if isinstance(world, ReplayWorld):
            return world.action
        if self.state.person:
            legal = get_game(self.state.game).legal_actions
            return self.pressed if self.pressed in legal else 0
        return thought.action

    @property
    def _who(self) -> str:
        return "recording" if self.state.mode == "replay" else "person" if self.state.person else "agent"

    def _decide(self, milliseconds: float | None = None, outcome: Outcome | None = None) -> None:
        """Think about what is seen now, and remember it as the newest record."""
        course, sight = self._course, self._sight
        assert self.mind is not None and course is not None and sight is not None
        self._suit(course.world.game)
        saved = None if outcome is not None and outcome.ended else course.world.save()
        thought = self.mind.decide(course.world.game, sight.frame, course.memory, milliseconds)
        self.history.append(
            Record(
                index=self.history.newest + 1, course=course, step=course.step, mode=self.state.mode, who=self._who,
                screen=Packed.of(sight.screen), frame=Packed.of(sight.frame), thought=thought,
                reward=0.0 if outcome is None else outcome.reward, score=course.score,
                ended=outcome is not None and outcome.ended, saved=saved,
                came_true=self.history.came_true(course, course.step, thought.tokens), episode=course.episode,
            )
        )  # fmt: skip
        self._shown = self.history.newest

    def _think_again(self) -> None:
        """Decide the newest moment anew, after settings have changed; while running the next one comes soon enough."""
        if self.state.running or not len(self.history) or self._shown != self.history.newest or self.mind is None:
            return
        record = self.history.get(self._shown)
        if record.course is self._course and record.taken is None:
            assert self._sight is not None
            self._suit(record.course.world.game)
            record.thought = self.mind.decide(record.course.world.game, self._sight.frame, self._course.memory)

    # Looking back

    def look(self, steps: int) -> bool:
        """Show the moment so many steps from the one shown; False when that lies beyond the newest."""
        if not len(self.history):
            return False
        shown = self.history.get(self._shown)
        if steps < 0 and shown.course is self._course and isinstance(shown.course.world, ReplayWorld):
            self.seek(shown.step + steps)  # what lies before in a recording can be shown, remembered or not
            return True
        if self._shown + steps > self.history.newest:
            return False
        self.look_at(self._shown + steps)
        return True

    def look_at(self, index: int | None) -> None:
        """Show moment ``index``; None: the newest."""
        if len(self.history):
            self._shown = self.history.get(self.history.newest if index is None else index).index

    def find(self, what: Literal["changed", "reward"], forward: bool) -> None:
        """Show the nearest moment before or after the one shown at which that happened; in a replay, any reward."""
        if not len(self.history):
            return
        shown = self.history.get(self._shown)
        recorded = shown.course.recorded if what == "reward" and shown.course is self._course else None
        if recorded is None:
            here, trace = shown.index, trace_of(self.history)
            places = trace.index[trace.changed if what == "changed" else trace.reward != 0]
        else:
            here, places = shown.step, np.flatnonzero(recorded[:-1]) + 1
        further = places[places > here] if forward else places[places < here][::-1]
        if not len(further):
            where = "later" if forward else "earlier"
            self._emit(Notice(f"No {where} {'reward' if what == 'reward' else 'change by planning'} is remembered"))
            return
        (self.look_at if recorded is None else self.seek)(int(further[0]))

    def seek(self, step: int | None) -> None:
        """In a replay: show moment ``step`` of the recording, or the nearest there is; None: the last.

        What is remembered of a recording has no gaps: a moment elsewhere takes the place of all that was.
        """
        course = self._course
        if self.mind is None or course is None or not isinstance(course.world, ReplayWorld):
            raise UsageError("there is no recording to move in: open one with File, Open recording")
        world = course.world
        step = min(max(len(world) - 1 if step is None else step, 0), len(world) - 1)
        index = self.history.newest - course.step + step
        if self.history.oldest <= index <= self.history.newest and self.history.get(index).course is course:
            self._shown = index
            return
        self.history.drop_course(course)
        first = max(step - self.mind.longest_context, 0)
        seen = self.mind.agent.encode(world.frames(first, step)).cpu().numpy() if step else ()
        course.memory = tuple(zip(seen, world.actions[first:step].tolist(), strict=True))
        course.step, course.score = step, float(world.rewards[:step].sum())
        self._sight = world.go_to(step)
        reward = float(world.rewards[step - 1]) if step else 0.0
        self._decide(outcome=Outcome(self._sight, reward, step == len(world) - 1))

    def continue_from_shown(self) -> None:
        """Make the moment shown the newest: its world goes back to it, and what came later is dropped."""
        if not len(self.history) or self._shown == self.history.newest:
            return
        record = self.history.get(self._shown)
        if record.saved is None:
            self.look_at(None)
            return
        dropped = self.history.newest - record.index
        self.history.drop_after(record.index)
        course = self._course = record.course
        course.world.restore(record.saved)
        course.step, course.score, course.memory = record.step, record.score, record.thought.memory
        course.episode, course.ended = record.episode, False
        record.taken = None
        self._sight = Sight(record.frame.array(), record.screen.array())
        if isinstance(course.world, RealWorld):
            self._real = course
        if self.mind is not None and record.thought.agent is not self.mind.agent:
            course.memory = ()
        person = record.mode == "take over" or (record.mode == "dream" and self.state.person)
        self.tell(mode=record.mode, game=course.world.game, person=person)
        self._think_again()
        self._emit(Notice(f"Going on from here; {dropped:,} later moments were dropped"))

    def moment(self, index: int | None = None) -> Moment | None:
        """Moment ``index``, or the nearest that is remembered; None: what is shown."""
        if not len(self.history):
            return None
        record = self.history.get(self._shown if index is None else index)
        if record.taken is not None or record.course is not self._course:
            done = record.thought.action if record.taken is None else record.taken
            return moment_of(self.history, record, record.who, done)
        return moment_of(self.history, record, self._who, self._choose(record.thought))

    def distributions(self) -> Distributions:
        """The critic's distributions at the moment shown."""
        record = self.history.get(self._shown)
        atoms, probabilities = record.thought.agent.value_distributions(
            record.thought.context(record.course.world.game)
        )
        return Distributions(record.index, atoms, probabilities[0])

    # What is played

    def obey(self, command: Command) -> None:
        """Carry out a command that is about what is played, and how."""
        match command:
            case told.Reset(seed):
                self.reset(seed)
            case told.SetGame(name):
                get_game(name)
                self.tell(game=name, mode="play", person=False, recording=None)
                self._new_game(name, self.state.seed)
            case told.SetPlanner(changes):
                self._plan_with(dict(changes))
            case told.Adjust(name, by):
                most = NUM_ACTIONS if name == "width" else self.state.longest_context - 1
                self._plan_with({name: min(max(getattr(self.state.planner, name) + by, 1), max(most, 1))})
            case told.SetContext(steps):
                self._remember(steps)
            case told.SetSticky(probability):
                self.tell(sticky=probability)
            case told.SetMode(mode):
                self._enter(mode)
            case told.Jump():
                self._enter(self._awake if self.state.mode == "dream" else "dream")
            case told.SetPerson(plays):
                self.tell(person=plays)
            case told.OpenRecording(path, game, episode):
                self._open(ReplayWorld(path, game, episode), f"{path.name}: episode {episode}")
            case told.SaveEpisode(path):
                self._emit(Notice(save_episode(self._real, path)))
            case told.Seek(step):
                self.tell(running=False)
                self.seek(step)
            case told.ExportMoment(path, index):
                export_moment(self.moment(index), path)
                self._emit(Notice(f"Exported to {path}"))

    def reset(self, seed: int | None) -> None:
        """A new episode of what is being played."""
        if self.mind is None or self._course is None:
            return
        course = self._course
        seed = course.seed + 1 if seed is None else seed
        if isinstance(course.world, RealWorld):
            self.tell(seed=seed)
            self._new_game(self.state.game, seed)
        else:
            self._begin(Course(course.world, self._next_episode(), seed))

    def _new_game(self, game: str, seed: int) -> None:
        if self.mind is None:
            return
        self._real = Course(RealWorld(game, self.state.sticky), self._next_episode(), seed)
        self._begin(self._real)

    def _begin(self, course: Course) -> None:
        self._course, self._sight = course, course.world.begin(course.seed)
        self._decide()

    def _next_episode(self) -> int:
        self._episodes += 1
        return self._episodes

    def _plan_with(self, changes: dict[str, Any]) -> None:
        config = replace(self.state.planner, **changes)
        if self.mind is not None:
            self.mind.set_planner(config)
        self._wanted |= changes
        self.tell(planner=config)
        self._think_again()

    def _remember(self, steps: int) -> None:
        if steps < 1:
            raise UsageError(f"context is {steps}: expected at least 1 step")
        self._wanted["context"] = steps
        if self.mind is not None:
            self.mind.context = steps
        self.tell(context=steps)
        self._think_again()

    def _enter(self, mode: told.Mode) -> None:
        if mode == self.state.mode or self.mind is None:
            return
        if mode == "replay":
            raise UsageError("choose a recording first: File, Open recording")
        if mode == "dream":
            self._fall_asleep()
        elif self.state.mode in ("dream", "replay"):
            self._wake(mode)
        else:
            self.pressed = 0
            self.tell(mode=mode, person=mode == "take over")

    def _fall_asleep(self) -> None:
        """Go on from the moment shown inside the world model; the real game waits."""
        assert self.mind is not None
        record = self.history.get(self._shown)
        if self._course is self._real:
            self._real_sight = self._sight
        world = DreamWorld(self.mind.agent, record.course.world.game, dream_start(record, LONGEST_MEMORY))
        self._awake = "take over" if self.state.mode == "take over" else "play"
        self.tell(mode="dream", game=world.game)  # whoever played plays on
        self._begin(Course(world, self._next_episode(), self.state.seed))

    def _wake(self, mode: told.Mode) -> None:
        """Back to the real game, where it was left."""
        self.pressed = 0
        if self._real is None:
            self.tell(mode=mode, person=mode == "take over", recording=None)
            self._new_game(self.state.game, self.state.seed)
            return
        self._course, self._sight = self._real, self._real_sight
        self.tell(mode=mode, person=mode == "take over", game=self._real.world.game, recording=None)
        self._decide()

    def _open(self, world: ReplayWorld, name: str) -> None:
        if self.mind is None:
            raise UsageError("there is no agent to look at it: open one first with File, Open agent folder")
        if self._course is self._real:
            self._real_sight = self._sight
        self.tell(mode="replay", person=False, game=world.game, recording=name)
        self._begin(Course(world, self._next_episode(), 0, recorded=world.rewards))
        if not world.in_colour:
            self._emit(Notice("Shown in grey, as recorded: the game cannot be played again for its colours"))
