"""From what a person names to an agent: a folder, the shipped one, or one of a model hub."""

from __future__ import annotations

import re
from pathlib import Path

import jowa
from jowa.agent import Agent
from jowa.errors import CheckpointError, UsageError

DEMO = "demo"
"""What the shipped agent is called."""
SHIPPED = Path(jowa.__file__).parent / "shipped" / DEMO
TRAINED = Path("runs/demo/agent")
"""Where ``python -m jowa.train`` leaves its agent."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HOW = (
    "Train a small one with python -m jowa.train, which takes minutes and leaves it in runs/demo/agent, "
    "or open a folder that holds an agent."
)


def is_shipped() -> bool:
    """Whether this installation came with an agent."""
    return (SHIPPED / "config.json").is_file()


def default_agent() -> str | None:
    """The agent to begin with when nobody named one: the shipped one, else the one trained here, if any."""
    if is_shipped():
        return DEMO
    return str(TRAINED) if (TRAINED / "config.json").is_file() else None


def may_be_there(source: str) -> bool:
    """Whether ``source`` can be an agent still: a hub is not asked."""
    return Path(source).exists() or HUB_ID.fullmatch(source) is not None or (source == DEMO and is_shipped())


def find_agent(source: str) -> Path:
    """The folder that ``source`` means: a folder, ``demo``, or the id of an agent on a model hub (``owner/name``).

    Raises :class:`UsageError` or :class:`CheckpointError` with what to do when there is none.
    """
    folder = Path(source).expanduser()
    if (folder / "agent" / "config.json").is_file():
        folder = folder / "agent"  # somebody chose the run around it
    if folder.is_dir():
        return folder
    if source == DEMO:
        if is_shipped():
            return SHIPPED
        raise UsageError(f"this installation comes without a demo agent. {HOW}")
    if HUB_ID.fullmatch(source):
        return _fetch(source)
    raise CheckpointError(f"there is no agent in {source}: the folder does not exist. {HOW}")


def _fetch(name: str) -> Path:
    """An agent of the Hugging Face hub, in its own cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UsageError(
            f"there is no folder {name}; to fetch an agent of that id from the Hugging Face hub, install its client "
            "with pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name))
    except Exception as error:  # the client's many ways to say that the network or the name is not there
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{name} could not be fetched from the hub ({first}): check the id and the network") from None


def load_agent(source: str, device: str = "auto") -> Agent:
    """Find and read an agent; raises a :class:`jowa.errors.JowaError` that says what to do."""
    return Agent.load(find_agent(source), device)
