"""From what a person names to an agent."""

from __future__ import annotations

from pathlib import Path

from jowa.agent import Agent

DEMO = Path("runs/demo/agent")
"""Where ``python -m jowa.train`` leaves its agent."""


def load_agent(source: str, device: str = "auto") -> Agent:
    """Find and read an agent: a folder, ``demo``, or ``owner/name`` on the Hugging Face hub.

    Raises a :class:`jowa.errors.JowaError` that says what to do.
    """
    return Agent.from_pretrained(source, None, device)
