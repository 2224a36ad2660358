"""The long-lived loops: worker, executor, scheduler, janitor, and the context that agent code sees."""
