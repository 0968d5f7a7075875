"""Arrays in, matplotlib Figures out. No pyplot, no global state: figures can be drawn in any thread and never pile up.

`figure.savefig(path)` writes a PNG at the size meant for a page 1000 pixels wide.
"""

from vitexp.explain.figures.confusion import confusion_matrix
from vitexp.explain.figures.curves import learning_curves
from vitexp.explain.figures.images import attention_maps, augmented_batch, sample_predictions
from vitexp.explain.figures.position import position_embedding

__all__ = [
    "attention_maps",
    "augmented_batch",
    "confusion_matrix",
    "learning_curves",
    "position_embedding",
    "sample_predictions",
]
