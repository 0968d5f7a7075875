"""Arrays in, matplotlib Figures out. No pyplot and no global state, so that any thread can draw.

`figure.savefig(path)` writes a PNG sized for a page 1000 pixels wide.
"""

from vitexp.explain.figures.comparison import model_comparison
from vitexp.explain.figures.confusion import confusion_counts, confusion_matrix, paired_confusions
from vitexp.explain.figures.curves import learning_curves, learning_rate_range
from vitexp.explain.figures.embedding import embedding_map
from vitexp.explain.figures.evaluation import ReliabilityPanel, reliability_diagram, robustness_curves
from vitexp.explain.figures.faithfulness import faithfulness_curves
from vitexp.explain.figures.heads import head_diversity
from vitexp.explain.figures.images import (
    attention_maps,
    augmented_batch,
    confident_mistakes,
    reconstructions,
    sample_predictions,
)
from vitexp.explain.figures.maps import map_grid
from vitexp.explain.figures.patches import exploded_patches, patch_filters
from vitexp.explain.figures.positions import Positions, position_embedding

__all__ = [
    "Positions",
    "ReliabilityPanel",
    "attention_maps",
    "augmented_batch",
    "confident_mistakes",
    "confusion_counts",
    "confusion_matrix",
    "embedding_map",
    "exploded_patches",
    "faithfulness_curves",
    "head_diversity",
    "learning_curves",
    "learning_rate_range",
    "map_grid",
    "model_comparison",
    "paired_confusions",
    "patch_filters",
    "position_embedding",
    "reconstructions",
    "reliability_diagram",
    "robustness_curves",
    "sample_predictions",
]
