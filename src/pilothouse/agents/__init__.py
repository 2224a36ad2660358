"""Ways to write an agent beside a function: YAML workflows, and agents of other frameworks on our journal."""
