"""The engine on a virtual clock and a real SQLite, with faults from one seed: a failing seed replays exactly."""
