"""``python -m benchmarks.misses AGENT STORE``: where an agent's draft head misses on held-out frames, to misses.npz."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jowa.agent import Agent
from jowa.data.store import EpisodeStore
from jowa.draft import Moments, imagine_pairs

MOMENTS = 128


def main(agent_folder: str, data: str) -> None:
    """Write misses bool (N, 36) and sureness float16 (N, 36) of each game."""
    agent, store = Agent.load(agent_folder, "cpu"), EpisodeStore.open(Path(data))
    if agent.draft_head is None:
        raise SystemExit(f"{agent_folder} has no draft head: python -m jowa.draft {agent_folder} {data}")
    found = {}
    generator = np.random.default_rng(1)
    for game in agent.tasks:
        count = store.num_episodes(game)
        held_out = range(count - max(1, round(0.1 * count)), count)
        context = min(agent.planning.context, agent.model.config.context_steps - 1)
        pairs = imagine_pairs(agent, Moments.draw(store, game, held_out, context, MOMENTS, generator), generator)
        guess = agent.draft_head.propose(pairs.tokens[None], pairs.actions[None], pairs.tasks[:1])
        misses = (guess.tokens[0] != pairs.outcomes).numpy()
        found[f"{game}_misses"] = misses
        assert guess.sureness is not None
        found[f"{game}_sureness"] = guess.sureness[0].numpy().astype(np.float16)
        print(f"{game}: {len(misses)} frames, {misses.sum(1).mean():.2f} misses a frame")
    np.savez_compressed(Path(__file__).parent / "misses.npz", **found)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m benchmarks.misses AGENT STORE")
    main(sys.argv[1], sys.argv[2])
