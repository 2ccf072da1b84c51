"""An MCP server over stdio in plain JSON lines, that can do everything wrong a server can.

Run as a program: python mcp_plain.py [HOW IT STARTS]
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

ODD = {
    "type": "object",
    "title": "echoArguments",
    "x-extra": [1, {"deep": None}],
    "properties": {"text": {"type": "string", "title": "Text", "maxLength": 50}, "self": {"type": "integer"}},
    "required": ["text"],
}
PLAIN: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}
NAMES = (
    "count",
    "fails",
    "refuses",
    "breaks",
    "dies",
    "garbage",
    "latin",
    "broken",
    "nonsense",
    "hangs",
    "big",
    "child",
    "shows",
)
TOOLS = [
    {"name": "echo", "description": "Say it again.", "inputSchema": ODD},
    *({"name": name, "inputSchema": PLAIN} for name in NAMES),
]
STARTS: dict[str, Any] = {
    "no-tools": [],
    "bad-schema": [{"name": "echo", "inputSchema": {"type": "object", "properties": {"a": {"type": "strin"}}}}],
    "no-schema": [{"name": "echo", "inputSchema": {"type": "object", "properties": 5}}],
    "not-an-object": [{"name": "echo", "inputSchema": {"type": "object", "$ref": "#/gone"}}],
    "twice": [TOOLS[0], TOOLS[0]],
    "pages": TOOLS,
}


def write(body: dict[str, Any] | bytes) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode(errors="surrogateescape")
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], **more}


class Plain:
    def __init__(self, start: str) -> None:
        self.start, self.count = start, 0

    def listed(self, cursor: str | None) -> dict[str, Any]:
        tools = STARTS.get(self.start, TOOLS)
        if self.start != "pages":
            return {"tools": tools}
        at = int(cursor or 0)
        return {"tools": tools[at : at + 5], **({"nextCursor": str(at + 5)} if at + 5 < len(tools) else {})}

    def called(self, name: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        n = arguments.get("n", 1)
        match name:
            case "echo":
                return text(json.dumps(arguments, sort_keys=True))
            case "count":
                self.count += 1
                return text(str(self.count))
            case "fails":
                return text("the drawer is stuck", isError=True)
            case "dies":
                print("out of cheese", file=sys.stderr, flush=True)
                os._exit(7)
            case "garbage":
                return write(b"<html>oops</html>")
            case "latin":
                return write(b"caf\xe9")
            case "broken":
                return text("caf\udce9")
            case "nonsense":
                return {"content": 5}
            case "hangs":
                return None
            case "big":
                return text("x" * n)
            case "child":
                return text(str(subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL).pid))
            case _:
                picture = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
                resource = {"type": "resource", "resource": {"uri": "note:///a", "text": "inside"}}
                return {"content": [picture, {"type": "text", "text": "below"}, resource]}

    def answer(self, request: dict[str, Any]) -> None:
        method, params, error = request["method"], request.get("params", {}), None
        result: dict[str, Any] | None = None
        if method == "initialize":
            info = {"name": "plain", "version": "1"}
            result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
        elif method == "tools/list":
            result = self.listed(params.get("cursor"))
        elif method != "tools/call":
            error = {"code": -32601, "message": f"no method {method}"}
        elif params["name"] == "refuses":
            error = {"code": -32602, "message": "n must be even"}
        elif params["name"] == "breaks":
            error = {"code": -32603, "message": "something broke in here"}
        else:
            result = self.called(params["name"], params.get("arguments") or {})
        if error or result is not None:
            write({"jsonrpc": "2.0", "id": request["id"], **({"error": error} if error else {"result": result})})


def main(start: str) -> None:
    if start == "exits":
        sys.exit("no licence found")
    if start == "banner":
        write(b"Welcome to Plain 1.0!")
    if start == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Plain(start)
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request and start != "mute":
            server.answer(request)
    while start == "deaf":
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
