"""What each figure of `vitexp explain` shows, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RAW: Final = "The same maps without the image below them."

# Title and text by file name, in the order of the page.
CAPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "explanations": (
        "Explanations",
        "Which parts of an image support the class: bright colors mark the most important parts, each map on its "
        "own scale. For test images, the number above a column is its faithfulness, insertion minus deletion (see "
        "below); do not trust a map that is no better than random order. ✓ and ✗ mark correct and wrong predictions. "
        "Attention and rollout do not depend on the class.",
    ),
    "explanations_raw": ("Explanations without the image", _RAW),
    "faithfulness": (
        "Which explanation to trust",
        "Parts of an image are covered (deletion) or revealed (insertion), the most important first. If an explanation "
        "is right, the probability of the class falls early on the left and rises early on the right. ± is half of the "
        "95% confidence interval over the images; intervals that overlap are inconclusive.",
    ),
    "classes": (
        "The most probable classes",
        "The map of each of the most probable classes: the parts that support it, whatever the network predicts.",
    ),
    "attention_layers": (
        "Attention of each layer",
        "Which patches the class token attends to or, in a network that pools patches, which patches the others attend "
        "to. Attention shows where information is read, not what decides.",
    ),
    "attention_layers_raw": ("Attention of each layer without the image", _RAW),
    "attention_heads": ("Attention of each head", "The first image: one row per head, one column per layer."),
    "attention_heads_raw": ("Attention of each head without the image", _RAW),
    "head_diversity": (
        "How the heads differ",
        "How far and how evenly each head attends, and how much the heads of a layer differ. Heads that do the same "
        "add nothing.",
    ),
    "patches": ("Patches", "The image as the network cuts it; each patch becomes one token."),
    "filters": ("First layer", "The principal components of the filters of the first layer, and their shares."),
    "position_embedding": (
        "Position embeddings",
        "How similar the embedding of each position is to all others, before and after training, and what training "
        "changed. What was there before training was not learned.",
    ),
    "embedding_pca": ("Embeddings, PCA", "Training images as the classifier receives them, projected linearly."),
    "embedding_tsne": (
        "Embeddings, t-SNE",
        "Training images as the classifier receives them. t-SNE keeps neighbors together; distances between groups and "
        "their sizes mean nothing.",
    ),
    "embedding_umap": (
        "Embeddings, UMAP",
        "Training images as the classifier receives them. UMAP keeps neighbors together; distances between groups mean "
        "little.",
    ),
    "model_comparison": (
        "Learning curves of both runs",
        "Loss and accuracy after each epoch. Training values are measured on augmented images while the weights "
        "change, so they may be worse than those on validation.",
    ),
    "confusions": ("Confusions of both runs", "Which classes each network takes for another on all test images."),
    "comparison": ("The same images, explained by both runs", "Class-specific maps of both networks."),
}
