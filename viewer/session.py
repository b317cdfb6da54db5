"""Runs environment, agent and planner in a thread of its own: commands in, events out.  No Qt here."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from jowa.agent import Agent
from jowa.errors import JowaError, describe_os_error
from jowa.viewer import commands as told
from jowa.viewer.commands import Command
from jowa.viewer.course import Play
from jowa.viewer.events import Event, Failed, State

SHOWN_A_SECOND = 30.0
"""Moments a second that are unpacked and sent out, at most, while the agent runs."""
ADVICE_MILLISECONDS = 50.0
"""Thinking time while the person plays, who must not wait for advice."""
LOG = logging.getLogger("jowa.viewer")


class Session:
    """The model of the viewer.

    Any thread may :meth:`send` commands; a command takes effect after the decision under way.  Events reach the
    subscribers in the session's thread, and must be taken up quickly: the next decision waits.
    """

    def __init__(self, game: str = "Pong", seed: int = 0, sticky: float = 0.25) -> None:
        self._commands: queue.Queue[Command] = queue.Queue()
        self._receivers: list[Callable[[Event], None]] = []
        self._play = Play(State(game=game, seed=seed, sticky=sticky), self._emit)
        self._thread = threading.Thread(target=self._work, name="viewer session", daemon=True)
        self._due = 0.0
        self._next_shown, self._stale = 0.0, False
        self._decided: deque[float] = deque()
        self._since: float | None = None
        self._closing = threading.Event()

    @property
    def state(self) -> State:
        """How the session stands; may be read from any thread."""
        return self._play.state

    def subscribe(self, receive: Callable[[Event], None]) -> None:
        """Call ``receive`` with every event from now on, in the session's thread."""
        self._receivers.append(receive)

    def use(self, agent: Agent, source: str) -> None:
        """Play with an agent in memory.  Before :meth:`start` only."""
        self._play.use(agent, source)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def send(self, *commands: Command) -> None:
        """Put ``commands`` into the queue; returns at once."""
        for command in commands:
            self._commands.put(command)

    @property
    def working(self) -> float:
        """Seconds that what is under way has taken so far; 0: nothing is."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def idle(self) -> bool:
        """Whether every command was carried out."""
        return self._commands.unfinished_tasks == 0

    def close(self, timeout: float = 0.5) -> bool:
        """Ask the thread to end and wait a little; False when it is still thinking (it dies with the process)."""
        self._closing.set()
        self._receivers.clear()
        self.send(told.Quit())
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _emit(self, event: Event) -> None:
        for receive in list(self._receivers):
            receive(event)

    def _work(self) -> None:
        try:
            self._obey_and_decide()
        finally:
            self._play.forget()

    def _obey_and_decide(self) -> None:
        self._attempt("Starting", self._play.begin, pause=True)
        self._show()
        while not self._closing.is_set():
            try:
                command = self._next_command()
            except queue.Empty:
                self._attempt("Playing", self._decide_next, pause=True)  # it would fail again and again
                continue
            if isinstance(command, told.Quit):
                return
            if not self._overtaken(command):
                self._attempt(_TITLES.get(type(command), "Not possible"), partial(self._obey, command))
            self._commands.task_done()

    def _overtaken(self, command: Command) -> bool:
        """Whether the next command takes this one back: who drags the timeline asks for more than can be shown."""
        with self._commands.mutex:
            following = self._commands.queue[0] if self._commands.queue else None
        return isinstance(command, told.GoTo | told.Seek) and type(following) is type(command)

    def _next_command(self) -> Command:
        """The next command; raises :class:`queue.Empty` when it is time to decide."""
        if not self._play.state.running:
            if self._stale:
                self._show()
            return self._commands.get()
        now = time.monotonic()
        if self._stale and now >= self._next_shown and self._due > now:
            self._show()
        wait = self._due - time.monotonic()
        return self._commands.get(timeout=wait) if wait > 0 else self._commands.get_nowait()

    def _attempt(self, title: str, action: Callable[[], object], pause: bool = False) -> None:
        """Do it; a failure becomes an event, and leaves everything else as it was, or pauses."""
        self._since = time.monotonic()
        try:
            action()
            return
        except JowaError as error:
            text = str(error)
        except OSError as error:
            text = describe_os_error(error)
        except Exception as error:
            LOG.exception("fault in the viewer")
            text = f"a fault in the viewer ({type(error).__name__}: {error}); the log has the details"
        finally:
            self._since = None
        self._play.tell(busy=None, running=self._play.state.running and not pause)
        self._emit(Failed(title, text[:1].upper() + text[1:]))

    def _decide_next(self) -> None:
        if self._play.mind is None:
            self._play.tell(running=False)
            return
        start = time.monotonic()
        limit = ADVICE_MILLISECONDS if self._play.state.person else None
        self._play.advance(limit)
        now = time.monotonic()
        speed = self._play.state.speed
        self._due = now if speed is None else max(start + 1 / speed, now)
        self._decided.append(now)
        while self._decided[0] < now - 1:
            self._decided.popleft()
        if now >= self._next_shown:
            self._show()
        else:
            self._stale = True

    def _show(self) -> None:
        """Send out the moment shown, and how the session stands."""
        self._stale = False
        self._next_shown = time.monotonic() + 1 / SHOWN_A_SECOND
        moment = self._play.moment()
        if moment is not None:
            self._emit(moment)
        self._play.tell(rate=float(len(self._decided)))
        if self._play.wants_distributions and moment is not None:
            self._emit(self._play.distributions())

    def _obey(self, command: Command) -> None:
        play = self._play
        match command:
            case told.Run():
                if play.mind is not None and not play.state.running:
                    play.continue_from_shown()
                    self._due = 0.0
                    play.tell(running=True)
            case told.Pause():
                play.tell(running=False)
            case told.Step():
                play.tell(running=False)
                if play.mind is not None and not play.look(1):
                    self._decide_next()
            case told.Back(steps):
                play.tell(running=False)
                play.look(-steps)
            case told.GoTo(index):
                play.tell(running=False)
                play.look_at(index)
            case told.Find(what, forward):
                play.tell(running=False)
                play.find(what, forward)
            case told.SetSpeed(speed):
                self._due = 0.0
                play.tell(speed=speed)
            case told.LoadAgent(source, own_game):
                play.tell(busy=f"Loading {source} …")
                play.load(source, own_game)
                play.tell(busy=None)
            case told.Press(action):
                play.pressed = action
                if play.state.running:
                    return  # it will be seen in what follows
            case told.AskDistributions(wanted):
                play.wants_distributions = wanted
            case _:
                play.obey(command)
        if not isinstance(command, told.Run | told.Pause | told.SetSpeed):
            self._show()


_TITLES: dict[type[Command], str] = {
    told.LoadAgent: "The agent cannot be used",
    told.SetPlanner: "These settings do not work",
    told.SetContext: "These settings do not work",
    told.OpenRecording: "The recording cannot be opened",
    told.SaveEpisode: "The episode was not saved",
    told.ExportMoment: "The decision was not exported",
    told.SetGame: "The game cannot be played",
    told.Jump: "The mode cannot be entered",
    told.SetMode: "The mode cannot be entered",
}
