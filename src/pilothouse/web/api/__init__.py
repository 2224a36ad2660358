"""The routes, one file per noun: parse, one verb of `control`, answer."""
