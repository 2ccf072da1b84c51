"""`rft serve`: the server, on its port until it is told to stop."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import uvicorn

from envs.errors import InputError
from rl.hosted import app, local
from rl.hosted.guard import LOOPBACK

TOKEN = "RFT_API_KEY"
"""The environment variable with the token that requests must bear."""
DRAIN = 5
"""Seconds that open connections have when the server stops."""


def serve(*, host: str, port: int, home: Path, config: Path) -> int:
    """Serve until SIGINT or SIGTERM; the exit code.

    Raises:
        InputError: settings, a home or an address that can't be used, or an open door without a token.
    """
    token = os.environ.get(TOKEN) or None
    if token is None and host not in LOOPBACK:
        raise InputError(f"--host {host} can be reached from outside: set {TOKEN} to what clients must send")
    settings = local.read(config)
    with _listen(host, port) as listening:
        logging.basicConfig(level=logging.WARNING)
        made = app.make(app.Server.open(home, settings), token=token)
        http = uvicorn.Config(made, log_level="warning", timeout_graceful_shutdown=DRAIN)
        shown = f"[{host}]" if ":" in host else host
        bound = listening.getsockname()[1]
        print(f"serving {', '.join(settings.models)} on http://{shown}:{bound}/v1, home {home}", flush=True)
        uvicorn.Server(http).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Port 0 is any that is free.

    Raises:
        InputError: the address is none of this machine's, or taken.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # before the address is told: who hears of it may ask at once
    except OSError as error:
        raise InputError(f"can't listen on {host}:{port}: {error.strerror}; name another --host or --port") from error
    return listening
