"""Whether a policy earns its reward or only collects it: signs of reward hacking, and when they are an alarm.

`signs` and `samples` say what a step's episodes look like, `Observed` keeps that with the rewards of the step, and
`watch` says what a history of those calls for. All of it is pure; nothing here stops a run.
"""

from rl.hacking.alarms import DECISIVE, DETECTORS, OF_HACKING, Action, Alarm, Observed, watch
from rl.hacking.change import cusum, drift, page_hinkley, psi
from rl.hacking.signs import positive_on_failures, samples, signs

__all__ = [
    "DECISIVE",
    "DETECTORS",
    "OF_HACKING",
    "Action",
    "Alarm",
    "Observed",
    "cusum",
    "drift",
    "page_hinkley",
    "positive_on_failures",
    "psi",
    "samples",
    "signs",
    "watch",
]
