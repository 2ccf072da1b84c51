"""What happens around a training step: versions are counted, metrics written, checkpoints sealed, Ctrl-C heard."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rl import checkpoint


class OnStep(TrainerCallback):
    """Calls back after each optimizer step, with the number of steps done."""

    def __init__(self, hear: Callable[[int], None]) -> None:
        self._hear = hear

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._hear(state.global_step)


class Metrics(TrainerCallback):
    """Hands every log entry, with its step, to a writer."""

    def __init__(self, write: Callable[[Mapping[str, Any]], None]) -> None:
        self._write = write

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            self._write({"step": state.global_step, **logs})


class Seal(TrainerCallback):
    """Completes and seals each checkpoint, then removes the oldest beyond `limit`."""

    def __init__(self, run: Path, state: Callable[[], Mapping[str, Any]], limit: int | None) -> None:
        self._run, self._state, self._limit = run, state, limit

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        directory = checkpoint.path(self._run, state.global_step)
        process = PartialState()
        checkpoint.write_state(directory, process.process_index, self._state())
        process.wait_for_everyone()
        if process.is_main_process:
            checkpoint.seal(directory)
            if self._limit is not None:
                checkpoint.keep(self._run, self._limit)
        process.wait_for_everyone()


class Interrupt(TrainerCallback):
    """The first SIGINT finishes the step, saves and stops; the second ends the process at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.asked = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        signal.signal(signal.SIGINT, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._say("finishing this step, then saving; Ctrl-C again ends at once")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
