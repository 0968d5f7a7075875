"""Arrays in, matplotlib Figures out. No pyplot, no global state: figures can be drawn in any thread and never pile up.

`figure.savefig(path)` writes a PNG at the size meant for a page 1000 pixels wide.
"""

from vitexp.explain.figures.calibration import ReliabilityPanel, reliability_diagram
from vitexp.explain.figures.confusion import confusion_matrix
from vitexp.explain.figures.curves import learning_curves
from vitexp.explain.figures.images import attention_maps, augmented_batch, sample_predictions
from vitexp.explain.figures.mistakes import confident_mistakes
from vitexp.explain.figures.position import position_embedding
from vitexp.explain.figures.robustness import robustness_curves

__all__ = [
    "ReliabilityPanel",
    "attention_maps",
    "augmented_batch",
    "confident_mistakes",
    "confusion_matrix",
    "learning_curves",
    "position_embedding",
    "reliability_diagram",
    "robustness_curves",
    "sample_predictions",
]
