"""The few errors that have a name, each with whose fault it is."""


class InputError(ValueError):
    """The user's: a file, a key or a value that can't be used. The message says what to do about it.

    The command line prints it without a traceback and exits with 2.
    """


class ToolError(Exception):
    """The model's: raised inside a tool to tell the model what was wrong with its call."""


class EnvLost(Exception):
    """The machinery's: the environment is gone (its sandbox, its server), and no call can bring it back."""
