"""Which agent to begin with, and from what a person names to an agent."""

from __future__ import annotations

from pathlib import Path

from jowa import hub
from jowa.agent import Agent

TRAINED = Path("runs/demo/agent")
"""Where ``python -m jowa.train`` leaves its agent."""


def is_shipped() -> bool:
    """Whether this installation came with an agent."""
    return (hub.SHIPPED / "config.json").is_file()


def default_agent() -> str | None:
    """The agent to begin with when nobody named one: the shipped one, else the one trained here, if any."""
    if is_shipped():
        return hub.DEMO
    return str(TRAINED) if (TRAINED / "config.json").is_file() else None


def may_be_there(source: str) -> bool:
    """Whether ``source`` can be an agent still: a hub is not asked."""
    return Path(source).exists() or hub.HUB_ID.fullmatch(source) is not None or (source == hub.DEMO and is_shipped())


def load_agent(source: str, device: str = "auto") -> Agent:
    """Find and read an agent: a folder, ``demo``, or ``owner/name`` on the Hugging Face hub.

    Raises a :class:`jowa.errors.JowaError` that says what to do.
    """
    return Agent.from_pretrained(source, None, device)
