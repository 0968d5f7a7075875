"""Arrays in, matplotlib Figures out. No pyplot, no global state: figures can be drawn in any thread and never pile up.

`figure.savefig(path)` writes a PNG at the size meant for a page 1000 pixels wide.
"""

from vitexp.explain.figures.calibration import ReliabilityPanel, reliability_diagram
from vitexp.explain.figures.comparison import paired_confusions
from vitexp.explain.figures.confusion import confusion_matrix
from vitexp.explain.figures.curves import learning_curves
from vitexp.explain.figures.embedding import embedding_map
from vitexp.explain.figures.faithfulness import faithfulness_curves
from vitexp.explain.figures.heads import head_diversity
from vitexp.explain.figures.images import attention_maps, augmented_batch, confident_mistakes, sample_predictions
from vitexp.explain.figures.maps import map_grid
from vitexp.explain.figures.patches import exploded_patches, patch_filters
from vitexp.explain.figures.position import position_embedding
from vitexp.explain.figures.reconstructions import reconstructions
from vitexp.explain.figures.robustness import robustness_curves

__all__ = [
    "ReliabilityPanel",
    "attention_maps",
    "augmented_batch",
    "confident_mistakes",
    "confusion_matrix",
    "embedding_map",
    "exploded_patches",
    "faithfulness_curves",
    "head_diversity",
    "learning_curves",
    "map_grid",
    "paired_confusions",
    "patch_filters",
    "position_embedding",
    "reconstructions",
    "reliability_diagram",
    "robustness_curves",
    "sample_predictions",
]
