"""How fast Pilothouse is, each figure beside its floor: the least SQL that could write the same rows."""
