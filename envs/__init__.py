"""What an episode is, and where it is played."""

from envs.analyst import Analyst
from envs.arithmetic import Arithmetic
from envs.bridges.hosted import Hosted
from envs.coder import Coder
from envs.desk import Desk
from envs.desk_talk import TalkingDesk
from envs.environment import Environment, ToolSpec, tool
from envs.errors import EnvLost, InputError, ToolError, unknown
from envs.guard import Guard
from envs.math import Math
from envs.named import load_attribute
from envs.search import Search
from envs.terminal import Terminal
from envs.types import (
    Approval,
    Completion,
    Cost,
    Episode,
    Message,
    Stop,
    Task,
    ToolCall,
    ToolResult,
    Turn,
)

__all__ = [
    "ENVS",
    "Approval",
    "Completion",
    "Cost",
    "EnvLost",
    "Environment",
    "Episode",
    "Guard",
    "InputError",
    "Message",
    "Stop",
    "Task",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "Turn",
    "find",
    "tool",
]


def find(name: str) -> type[Environment]:
    """The environment of that name: one of the house, or `module:attribute`.

    Raises:
        InputError: there is none, or what is named is not an `Environment`.
    """
    if ":" not in name:
        if name not in ENVS:
            raise InputError(f"{unknown('environment', name, ENVS)}; name your own as module:attribute")
        return ENVS[name]
    found = load_attribute(name)
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise InputError(f"{name} is no environment; it must be a subclass of envs.Environment")
    return found


ENVS: dict[str, type[Environment]] = {
    "analyst": Analyst,
    "arithmetic": Arithmetic,
    "coder": Coder,
    "desk": Desk,
    "desk_talk": TalkingDesk,
    "hosted": Hosted,
    "math": Math,
    "search": Search,
    "terminal": Terminal,
}
