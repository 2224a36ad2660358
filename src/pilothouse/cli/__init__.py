"""The command line: one file per noun; a command parses, calls one verb of `control`, and prints."""
