"""An MCP server made with the official SDK. Run as a program: python mcp_sdk.py [PORT]"""

from __future__ import annotations

import os
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def add_note(text: str, times: int = 1) -> str:
    """Keep a note."""
    notes.extend([text] * times)
    return f"{len(notes)} notes"


@server.tool()
def all_notes() -> list[str]:
    """Every note of this process."""
    return notes


@server.tool()
def divide(a: int, b: int) -> float:
    """Divide two integers."""
    return a / b


@server.tool()
def leave() -> str:
    """End the process."""
    os._exit(0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
