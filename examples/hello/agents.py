"""The example of the README: a step, a child and a wait."""

from __future__ import annotations

from pilothouse import App, Context

app = App("hello")


@app.agent
async def shout(ctx: Context, text: str) -> str:
    return await ctx.step("upper", text.upper)


@app.agent
async def greet(ctx: Context, name: str) -> str:
    child = await ctx.start("shout", {"text": f"hello, {name}"})
    greeting = await child.result()  # the run waits and holds nothing
    approved_by = await ctx.wait_for("approved")  # a signal, before or after
    return f"{greeting} (approved by {approved_by})"
