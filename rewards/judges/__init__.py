"""Rewards that ask a judge: a language model, a panel, a reward model, a pool of other answers."""
