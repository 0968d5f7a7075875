"""What happens during a run."""

from vitexp.callbacks.explanations import EmbeddingMap, Explanations
from vitexp.callbacks.figures import (
    AttentionMaps,
    AugmentedBatch,
    ConfusionMatrix,
    LearningCurves,
    PositionEmbedding,
    SamplePredictions,
)
from vitexp.callbacks.reconstructions import Reconstructions

__all__ = [
    "AttentionMaps",
    "AugmentedBatch",
    "ConfusionMatrix",
    "EmbeddingMap",
    "Explanations",
    "LearningCurves",
    "PositionEmbedding",
    "Reconstructions",
    "SamplePredictions",
]
