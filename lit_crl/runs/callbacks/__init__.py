"""What a run shows and leaves: progress, metrics, checkpoints and a report at the end."""

from lit_crl.callbacks.checkpoint import RunCheckpoint
from lit_crl.callbacks.interruption import StopOnSignal
from lit_crl.callbacks.metrics import MetricsCsv, RecordMetrics
from lit_crl.callbacks.progress import EnvStepProgress
from lit_crl.callbacks.report import RunReport

__all__ = [
    "EnvStepProgress",
    "MetricsCsv",
    "RecordMetrics",
    "RunCheckpoint",
    "RunReport",
    "StopOnSignal",
]
