"""What happens around a training step: versions are counted, metrics written, checkpoints sealed, Ctrl-C heard."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rl import checkpoint

SAID = "finishing this step, then saving; once more ends at once"


class OnStep(TrainerCallback):
    """Calls back after each optimizer step, with the number of steps done."""

    def __init__(self, hear: Callable[[int], None]) -> None:
        self._hear = hear

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._hear(state.global_step)


class OnEvaluate(TrainerCallback):
    """Calls back after each evaluation, with the step and the metrics; told True, it ends the training."""

    def __init__(self, hear: Callable[[int, Mapping[str, float]], bool]) -> None:
        self._hear = hear

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self._hear(state.global_step, metrics or {}):
            control.should_training_stop = True


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
    """Completes and seals each checkpoint, then removes the oldest beyond `limit`, but never the best.

    With `best`, those of so many evaluations with the highest reward are kept, and the newest, which a resume needs.
    """

    def __init__(
        self, run: Path, state: Callable[[], Mapping[str, Any]], limit: int | None, best: int | None = None
    ) -> None:
        self._run, self._state, self._limit, self._best = run, state, limit, best

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        directory = checkpoint.path(self._run, state.global_step)
        process = PartialState()
        checkpoint.write_state(directory, process.process_index, self._state())
        process.wait_for_everyone()
        if process.is_main_process:
            checkpoint.seal(directory)
            if self._limit is not None:
                checkpoint.keep(self._run, self._limit, also=[state.best_global_step])
            if self._best is not None:
                earned = {int(line["step"]): line["eval_reward"] for line in state.log_history if "eval_reward" in line}
                checkpoint.keep(self._run, 1, also=checkpoint.best(earned, self._best))
        process.wait_for_everyone()


class Interrupt(TrainerCallback):
    """The first SIGINT or SIGTERM finishes the step, saves and stops; the second ends the process at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)
    SAME = 1.0
    """Seconds in which further signals say the same: a launcher passes on what the terminal has sent to all."""

    def __init__(self, say: Callable[[str], None], *, window: int) -> None:
        """`window`: after how many steps a checkpoint can be resumed from exactly."""
        self._say, self._window = say, window
        self._asked: float | None = None
        self.stopped = False
        """True if training ended before its end because it was asked to."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._before = {number: signal.signal(number, self._hear) for number in self.SIGNALS}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            # In a thread: this one may be in the middle of printing, which must not be entered twice.
            threading.Thread(target=self._say, args=(SAID,)).start()
        elif now - self._asked > self.SAME:
            raise KeyboardInterrupt

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self._window:
            return
        # Ranks may have heard it in different steps, or only one of them; they must stop after the same one.
        if any(gather_object([self._asked is not None])):
            control.should_save = control.should_training_stop = True
            self.stopped = state.global_step < state.max_steps

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
