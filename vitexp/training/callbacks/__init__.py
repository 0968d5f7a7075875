"""Callbacks that draw the figures of a run."""

from vitexp.training.callbacks.explanations import EmbeddingMap, Explanations
from vitexp.training.callbacks.figures import (
    AttentionMaps,
    AugmentedBatch,
    ConfusionMatrix,
    LearningCurves,
    PositionEmbedding,
    Reconstructions,
    SamplePredictions,
)

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
