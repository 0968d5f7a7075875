"""What happens during a run."""

from vitexp.callbacks.figures import (
    AttentionMaps,
    AugmentedBatch,
    ConfusionMatrix,
    LearningCurves,
    PositionEmbedding,
    SamplePredictions,
)

__all__ = [
    "AttentionMaps",
    "AugmentedBatch",
    "ConfusionMatrix",
    "LearningCurves",
    "PositionEmbedding",
    "SamplePredictions",
]
