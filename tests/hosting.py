"""A real server on a free port of this machine, and the official client to ask it with."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from openai import OpenAI

from rl.hosted import app
from rl.hosted.local import Local

LETTERS = {
    "type": "multi",
    "graders": {
        "has_e": {"type": "string_check", "input": "{{sample.output_text}}", "reference": "e", "operation": "ilike"},
        "vowels": {
            "type": "python",
            "source": "def grade(sample, item):\n"
            "    said = sample['output_text']\n"
            "    return sum(letter in item['letters'] for letter in said) / (len(said) + 1)\n",
        },
        "alike": {
            "type": "text_similarity",
            "input": "{{sample.output_text}}",
            "reference": "{{item.wanted}}",
            "evaluation_metric": "fuzzy_match",
        },
    },
    "calculate_output": "0.1 * has_e + 0.8 * vowels + 0.1 * alike",
}
"""A grader of three kinds that any text earns something by: for a model that learned nothing."""

UNSAFE = "the graders are those of the tests"


class Hosting:
    """A server in a thread. With `working` false it takes jobs and runs none."""

    def __init__(self, home: Path, *, token: str | None = None, working: bool = True, **local: Any) -> None:
        self.server = app.Server.open(home, Local.model_validate(local))
        self.app = app.make(self.server, token=token)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._working = working
        lifespan = "on" if working else "off"
        self._http = uvicorn.Server(uvicorn.Config(self.app, lifespan=lifespan, log_level="error"))
        self._thread = threading.Thread(target=self._http.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        self.token = token

    @property
    def client(self) -> OpenAI:
        """The official client, which does not try again what failed."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.token or "none", max_retries=0)

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One request, by hand."""
        return httpx.request(method, f"{self.url}{path}", timeout=60, **request)

    def upload(self, rows: list[Mapping[str, Any]], name: str = "rows.jsonl") -> str:
        """The id of a file with these rows."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        return self.client.files.create(file=(name, text.encode()), purpose="fine-tune").id

    def close(self) -> None:
        """Stop it in order."""
        self._http.should_exit = True
        self._thread.join()
        if not self._working:
            asyncio.run(self.server.close())


def rows(kind: str, count: int) -> list[dict[str, Any]]:
    """Rows of hosted fine-tuning, those of two kinds having nothing in common."""
    return [
        {
            "messages": [{"role": "user", "content": f"{kind}: write the letters of {number}"}],
            "letters": "aeiou",
            "wanted": "aeiou",
        }
        for number in range(count)
    ]


def reinforcement(train: str, valid: str, grader: Mapping[str, Any] = LETTERS, **more: Any) -> dict[str, Any]:
    """The body of a job."""
    hyperparameters = more.pop("hyperparameters", {})
    method = {"grader": grader, "hyperparameters": hyperparameters}
    return {
        "model": "tiny",
        "training_file": train,
        "validation_file": valid,
        "method": {"type": "reinforcement", "reinforcement": method},
        **more,
    }


def until(reached: Any, patience: float = 1800.0) -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + patience
    while not (found := reached()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)
    return found
