"""Importing DQN-Replay, the published logs of DQN agents' play, into an episode store: docs/dqn-replay.md."""
