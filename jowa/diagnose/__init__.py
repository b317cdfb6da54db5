"""What limits an agent: its imagination, its critic, or what planning makes of them.

Measured is each thing that the paper's bound on planning in imagination speaks of (Theorem C.2): the errors of the
model k steps ahead, the error of the critic, and the difference that planning makes, imagined and in the real game.
"""
