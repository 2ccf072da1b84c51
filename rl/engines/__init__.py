"""Token ids in, token ids and logprobs out; a LoRA adapter by version.

`rl.engines.vllm` is the engine; `rl.engines.transformers` serves platforms without vLLM.
Importing this file imports neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from envs.types import Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one turn is sampled. The defaults are the only ones whose logprobs are unbiased for
    training: truncating the distribution (top_p, top_k) changes what the importance ratio means."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    max_tokens: int = 512
    """Of one turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One sampled turn: ids (the stop token included), and their processed logprobs."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a turn, as it is being sampled."""

    token_ids: tuple[int, ...]
    logprobs: tuple[Mapping[int, float], ...]
    """At each place the sampled token's, and those of the likeliest others that were asked for."""
    finish: Finish | None = None
    """In the last part: how the turn ended."""


class EngineError(RuntimeError):
    """The engine failed or died. The machinery's fault, never the policy's."""


class Engine(Protocol):
    """A server of one policy: a frozen base and the newest version of its adapter."""

    version: int
    """The adapter version that answers now; 0 is the base."""
    max_model_len: int
    """Context length in tokens: prompt and sampled together."""

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, stop_ids: Sequence[int], seed: int | None = None
    ) -> Sampled:
        """Sample one turn.

        Raises:
            EngineError: the engine is dead or refused the request.
        """
        ...

    async def logprobs(self, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of `token_ids` after `prompt_ids`, one each, at temperature 1; none is sampled.

        Together they must be shorter than `max_model_len`, and neither may be empty.

        Raises:
            EngineError: the engine is dead or refused the request.
        """
        ...

    async def load(self, adapter: Path, version: int) -> None:
        """Serve `adapter` (a directory written by PEFT's `save_pretrained`) from now on as `version`.

        Returns when every later `generate` is answered by it; the files may then be deleted.
        Versions must grow. Must not be called while turns are being sampled.
        """
        ...

    async def healthy(self) -> bool:
        """True if the engine answers."""
        ...

    async def sleep(self) -> None:
        """Give back accelerator memory between rollouts, where there is any (vLLM level 1)."""
        ...

    async def wake(self) -> None:
        """Undo `sleep`."""
        ...

    async def close(self) -> None:
        """Stop the engine and its processes. Idempotent."""
        ...
