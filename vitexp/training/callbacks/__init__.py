"""Callbacks that draw the figures of a run, and optional ones."""

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
from vitexp.training.callbacks.norms import Norms
from vitexp.training.callbacks.probe import KnnProbe

__all__ = [
    "AttentionMaps",
    "AugmentedBatch",
    "ConfusionMatrix",
    "EmbeddingMap",
    "Explanations",
    "KnnProbe",
    "LearningCurves",
    "Norms",
    "PositionEmbedding",
    "Reconstructions",
    "SamplePredictions",
]
