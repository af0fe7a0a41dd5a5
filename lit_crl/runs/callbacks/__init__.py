"""Callbacks of a run: progress, metrics, checkpoints, and a report at the end."""

from lit_crl.runs.callbacks.metrics import MetricsCsv, RecordMetrics
from lit_crl.runs.callbacks.progress import EnvStepProgress
from lit_crl.runs.callbacks.report import RunReport
from lit_crl.runs.callbacks.transitions import KeepTransitions
from lit_crl.runs.checkpoints.best import BestCheckpoint
from lit_crl.runs.checkpoints.callback import RunCheckpoint
from lit_crl.runs.checkpoints.signals import StopOnSignal

__all__ = [
    "BestCheckpoint",
    "EnvStepProgress",
    "KeepTransitions",
    "MetricsCsv",
    "RecordMetrics",
    "RunCheckpoint",
    "RunReport",
    "StopOnSignal",
]
