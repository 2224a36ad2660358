"""Kill switches and the sense of what runs away, for an attempt in a process of its own: it asks its worker before each
effect, and keeps nothing.
"""

from __future__ import annotations

from dataclasses import asdict

from pilothouse.control.switchboard import Switches
from pilothouse.domain.runaways import MINUTE_US, Excess, RunawayRule
from pilothouse.domain.switches import Switch, SwitchMode, Target, Tripped, stopping
from pilothouse.engine.attempt import Attempt
from pilothouse.engine.patience import patiently
from pilothouse.engine.remote_models import Asks
from pilothouse.engine.wire import Frame


class RemoteSwitches:
    """What `Attempt.services.around.switches` is in an isolated process."""

    is_fresh = False

    def __init__(self, ask: Asks) -> None:
        self._ask = ask
        self._tripped: Tripped = {}

    async def refresh(self) -> None:
        told = await self._ask("switches")
        self._tripped = {each["scope"]: Switch(**{**each, "mode": SwitchMode(each["mode"])}) for each in told}

    def held(self, target: Target, tool: str | None = None) -> Switch | None:
        return stopping(self._tripped, target, tool)


async def tell_switches(attempt: Attempt) -> list[Frame]:
    """The worker's answer: what is tripped by a look that began after it was asked."""
    switches = attempt.services.around.switches
    if not isinstance(switches, Switches):
        return []
    await patiently(switches.refresh)
    return [asdict(switch) for switch in switches.tripped.values()]


class RemoteRunaways:
    """What `Attempt.services.around.runaways` is in an isolated process. The worker counts the tokens."""

    def __init__(self, ask: Asks, rule: RunawayRule) -> None:
        self._ask = ask
        self.rule = rule

    async def too_fast(self, _tokens: int, _version: str) -> Excess | None:
        told = await self._ask("velocity") if self.rule.velocity > 0 else None
        return None if told is None else Excess(*told)


def tell_rule(attempt: Attempt) -> Frame | None:
    runaways = attempt.services.around.runaways
    return None if runaways is None else asdict(runaways.rule)


async def tell_velocity(attempt: Attempt) -> Excess | None:
    runaways = attempt.services.around.runaways
    if runaways is None:
        return None
    tokens = attempt.tokens[attempt.now_us() // MINUTE_US]
    return await runaways.too_fast(tokens, attempt.agent.version.fingerprint)
