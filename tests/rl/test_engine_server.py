"""A real `vllm serve` as the engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from envs.errors import InputError
from rl.engines import EngineError, Sampling

pytestmark = [pytest.mark.stack, pytest.mark.slow]

PROMPT = [(7 * i) % 500 for i in range(300)]
LORA: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear", "alpha_pattern": {"k_proj": 40}}
START_SECONDS = 180.0


def serve(model: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server on a free port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "float32",
        "--max-model-len",
        "512",
        "--enforce-eager",
    ]
    command += ["--kv-cache-memory-bytes", str(1 << 30), "--skip-tokenizer-init", *arguments]
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    server = subprocess.Popen(command, env=os.environ | environment)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").is_success:
                return server, url
        except httpx.HTTPError:
            time.sleep(0.5)
    server.kill()
    raise AssertionError("vllm serve did not start")


@pytest.fixture(scope="module")
def url(made_model: Any) -> Iterator[str]:
    lora = ["--enable-lora", "--max-lora-rank", "8", "--max-cpu-loras", "2"]
    server, address = serve(made_model("qwen3"), *lora, "--logprobs-mode", "processed_logprobs")
    yield address
    server.terminate()
    server.wait()


def test_logprobs_are_pefts_across_three_versions(url: str, run: Any, made_model: Any, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from rl.engines.server import ServerEngine

    engine = run(ServerEngine.open(url=url, lora=LORA))
    assert engine.max_model_len == 512
    base = AutoModelForCausalLM.from_pretrained(made_model("qwen3"), dtype=torch.float32)
    policy = get_peft_model(base, LoraConfig(**LORA, task_type="CAUSAL_LM"))

    def apart() -> float:
        turn = run(engine.generate(PROMPT, Sampling(max_tokens=16, temperature=0.7), stop_ids=[], seed=1))
        with torch.no_grad():
            logits = policy(torch.tensor([PROMPT + list(turn.token_ids)])).logits[0, len(PROMPT) - 1 : -1] / 0.7
        expected = logits.log_softmax(-1)[range(16), list(turn.token_ids)].tolist()
        return max(abs(a - b) for a, b in zip(turn.logprobs, expected, strict=True))

    for version in (1, 2, 3):
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        policy.save_pretrained(tmp_path / str(version))
        assert apart() > 1e-2, "the test can't tell this version from the last"
        run(engine.load(tmp_path / str(version), version))
        assert apart() < 1e-4
    for _ in range(2):
        found = run(engine.logprobs(PROMPT, [3, 500, 7, 7]))
        with torch.no_grad():
            logits = policy(torch.tensor([[*PROMPT, 3, 500, 7, 7]])).logits[0, len(PROMPT) - 1 : -1]
        expected = logits.log_softmax(-1)[range(4), [3, 500, 7, 7]].tolist()
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4

    free = run(engine.generate(PROMPT, Sampling(max_tokens=16), stop_ids=[], seed=3))
    assert (free.finish, free.version, len(free.token_ids)) == ("length", 3, 16)
    held = run(engine.generate(PROMPT, Sampling(max_tokens=16), stop_ids=[free.token_ids[9]], seed=3))
    assert held.finish == "stop"
    assert held.token_ids == free.token_ids[: free.token_ids.index(free.token_ids[9]) + 1]
    with pytest.raises(EngineError):
        run(engine.generate([1] * 600, Sampling(), stop_ids=[]))
    assert run(engine.healthy())
    run(engine.close())
    run(engine.close())
    assert not run(engine.healthy())
    assert len(httpx.get(f"{url}/v1/models").json()["data"]) == 1, "an adapter was left on the server"


def test_a_server_with_raw_logprobs_is_refused(run: Any, made_model: Any) -> None:
    from rl.engines.server import ServerEngine

    server, address = serve(made_model("qwen3"))
    try:
        with pytest.raises(InputError, match="processed_logprobs"):
            run(ServerEngine.open(url=address))
    finally:
        server.terminate()
        server.wait()


def test_no_server_is_an_engine_error(run: Any) -> None:
    from rl.engines.server import ServerEngine

    with pytest.raises(EngineError, match=r"127\.0\.0\.1"):
        run(ServerEngine.open(url="http://127.0.0.1:9"))
