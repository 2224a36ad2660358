"""Agents that ship with Pilothouse: real work on real input, without a model and without the network."""
