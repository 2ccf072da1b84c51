"""A server that trains a job, and how many requests it answers meanwhile; used by `graders.py`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
CONNECTIONS = 16
SECONDS = 5.0
"""Of a round."""
PATIENCE = 1200.0
"""Seconds until the job trains."""
LOCAL = {
    "tiny": {"steps": 20, "demonstrations": 40, "batch": 4},
    "rollout": {"max_tokens": 32},
    "engine": {"max_model_len": 512, "kv_cache_memory_bytes": 1 << 26},
    "lora": {"r": 8},
}
GRADER = {"type": "string_check", "input": "{{sample.output_text}}", "reference": "e", "operation": "like"}


def while_training(grader: Mapping[str, Any], item: Mapping[str, Any], said: str, rounds: int) -> dict[str, float]:
    """Requests a second and the 99th percentile of their milliseconds, medians of the rounds after one.

    Half of the requests grade a sample of an item, half read a page of the job's events, over `CONNECTIONS`
    connections at once. Client, server and training share the machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch, "local.yaml")
        config.write_text(json.dumps(LOCAL))  # JSON is YAML
        command = [sys.executable, "-m", "rl.cli", "serve", "--port", "0", "--home", f"{scratch}/home"]
        server = subprocess.Popen(
            [*command, "--config", str(config)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+/v1", server.stdout.readline())
            assert found, "the server did not start"
            job = _train(found[0])
            body = {"grader": grader, "item": item, "model_sample": said}
            return asyncio.run(_measure(found[0], job, body, rounds))
        finally:
            server.send_signal(signal.SIGKILL)  # the job with it
            server.wait()


def _train(url: str) -> str:
    """The id of a job that trains, and will for longer than anybody measures."""
    ids = []
    for kind, count in (("train", 64), ("valid", 8)):
        rows = ({"messages": [{"role": "user", "content": f"{kind} {n}"}]} for n in range(count))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        answer = httpx.post(f"{url}/files", files={"file": (kind, text.encode())}, data={"purpose": "fine-tune"})
        ids.append(answer.raise_for_status().json()["id"])
    method = {"grader": GRADER, "hyperparameters": {"batch_size": 8, "n_epochs": 50, "eval_interval": 50}}
    body = {
        "model": "tiny",
        "training_file": ids[0],
        "validation_file": ids[1],
        "method": {"type": "reinforcement", "reinforcement": method},
    }
    job: str = httpx.post(f"{url}/fine_tuning/jobs", json=body, timeout=60).raise_for_status().json()["id"]
    deadline = time.monotonic() + PATIENCE
    while not any(event["type"] == "metrics" for event in _get(f"{url}/fine_tuning/jobs/{job}/events")["data"]):
        status = _get(f"{url}/fine_tuning/jobs/{job}")
        assert status["status"] in ("queued", "running"), status["error"]
        assert time.monotonic() < deadline, "the job did not come to its first step"
        time.sleep(1)
    return job


def _get(url: str) -> Any:
    return httpx.get(url, timeout=60).raise_for_status().json()


async def _measure(url: str, job: str, body: Mapping[str, Any], rounds: int) -> dict[str, float]:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        requests: list[Callable[[], Any]] = [
            lambda: client.post("/fine_tuning/alpha/graders/run", json=body),
            lambda: client.get(f"/fine_tuning/jobs/{job}/events"),
        ]
        rates, tails = [], []
        for _ in range(rounds + 1):
            took, seconds = await _round(requests)
            rates.append(len(took) / seconds)
            tails.append(statistics.quantiles(took, n=100)[98] * 1000)
        status = (await client.get(f"/fine_tuning/jobs/{job}")).json()["status"]
    assert status == "running", f"the job was {status} before the measuring ended"
    return {"http_per_s": statistics.median(rates[1:]), "http_p99_ms": statistics.median(tails[1:])}


async def _round(requests: list[Callable[[], Any]]) -> tuple[list[float], float]:
    took: list[float] = []
    started = time.perf_counter()

    async def connection(number: int) -> None:
        while time.perf_counter() - started < SECONDS:
            sent = time.perf_counter()
            answer = await requests[(len(took) + number) % len(requests)]()
            answer.raise_for_status()
            took.append(time.perf_counter() - sent)

    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    return took, time.perf_counter() - started
