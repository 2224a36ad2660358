"""Workflows: agents that are defined as a graph of nodes in YAML, checked before they run, each node a step."""
