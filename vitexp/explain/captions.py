"""What each figure of `vitexp explain` shows, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RAW: Final = "The same maps, cell by cell and not over the image."
_SHARE: Final = (
    f"{_RAW} All are on one scale, so that weak ones are dark. Below each, the largest share of the attention that a "
    "patch receives. The class token also attends to itself, so the share of all patches is stated with it."
)
_STARS: Final = (
    "Colors and numbers are true classes, not predictions. Stars are test images of the other figures, the last "
    "of them a mistake if there is one, shown below with the most similar training images and their cosine "
    "similarity."
)

# Of the report of a run and of its evaluation.
CONFUSION_MATRIX: Final = (
    "Confusion matrix",
    "Rows are true classes, columns predicted classes. Blue is correct, orange is wrong; the darker a cell, the larger "
    "its share of the row, and white cells hold no image. The numbers are counts of images; with more than 20 "
    "classes, only errors of at least 10% of a class and those listed below have one, and with more than 50, frames "
    "mark the listed ones. The text below names the most frequent mistakes.",
)

# Title and text by file name, in the order of the page.
CAPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "explanations": (
        "Explanations",
        "Which parts of an image support the class: bright colors mark the most important parts, each map on its "
        "own scale. For test images, the number above a column is its faithfulness, insertion minus deletion (see "
        "below); do not trust a map that is not clearly better than random order, image by image. ✓ and ✗ mark correct "
        "and wrong predictions. Attention and rollout do not depend on the class.",
    ),
    "explanations_raw": ("Explanations without the image", _RAW),
    "faithfulness": (
        "Which explanation to trust",
        "Deletion covers an image with its mean color, the most important parts first: if an explanation is right, the "
        "probability falls early. Insertion reveals a blurred image, which is why it starts higher than deletion ends. "
        "± in the table, and the bands, are 95% intervals over the images. “Clearly better” and “not clearly better”, "
        "here and in headings, come from the differences image by image, which tell more than whether two intervals "
        "overlap. "
        "Occlusion covers parts itself, as this measure does, which favors it.",
    ),
    "classes": (
        "The most probable classes",
        "The parts that support each of the most probable classes, and the true class, whatever the network "
        "predicts. Each map is on its own scale: compare positions, not strengths.",
    ),
    "attention_layers": (
        "Attention of each layer",
        "Which patches the class token attends to or, in a network that pools patches, which patches the others attend "
        "to. Attention shows where information is read, not what decides.",
    ),
    "attention_layers_raw": ("Attention of each layer without the image", _SHARE),
    "attention_stages": (
        "Attention of each block",
        "How much attention each position of a map receives from the others; block 2.3 is the third of the second "
        "stage. In a Swin Transformer the others are those of the same window, so compare within a window. "
        "Attention shows where information is read, not what decides.",
    ),
    "attention_stages_raw": (
        "Attention of each block without the image",
        f"{_RAW} All are on one scale. Below each, its largest value as a multiple of an even share.",
    ),
    "attention_heads": ("Attention of each head", "The first image: one row per head, one column per layer."),
    "attention_heads_raw": ("Attention of each head without the image", _SHARE),
    "head_diversity": (
        "How the heads differ",
        "Above: how far and how evenly each head attends (dots), averaged over all tokens, not only the class token, "
        "and the mean of the layer (gray line). Below: the "
        "Jensen-Shannon divergence of the attention of two heads, 0 if they attend to the same tokens and 1 if to "
        "disjoint ones; on the right, a dot is a pair of heads. Pairs near 0 are redundant.",
    ),
    "patches": ("Patches", "The image as the network cuts it; each patch becomes one token."),
    "filters": (
        "First layer",
        "The main patterns in the filters of the first layer, each with its share of their variance. Edges, blobs and "
        "plain colors are structure that training found; noise with similar shares is what initialization left.",
    ),
    "position_embedding": (
        "Position embeddings",
        "How similar the embedding of each position is to all others, before and after training, and what training "
        "changed. What was there before training was not learned.",
    ),
    "embedding_pca": (
        "Embeddings, PCA",
        "Training images as the classifier receives them, projected onto the two directions of largest variance. The "
        f"network separates them better than test images. {_STARS}",
    ),
    "embedding_tsne": (
        "Embeddings, t-SNE",
        "t-SNE keeps neighbors together; distances between groups, and their sizes, carry little meaning. Training "
        f"images, which the network separates better than test images. {_STARS}",
    ),
    "embedding_umap": (
        "Embeddings, UMAP",
        "UMAP keeps neighbors together; distances between groups carry little meaning. Training images, which the "
        f"network separates better than test images. {_STARS}",
    ),
    "model_comparison": (
        "Learning curves of both runs",
        "Loss and accuracy after each epoch. Training values are averages over augmented images while the weights "
        "still change, so they may be worse than those on validation. Runs of different numbers of epochs or training "
        "times are not compared at equal cost.",
    ),
    "confusions": (
        "Confusions of both runs",
        "The most frequent confusions of each network, as counts of all test images. A confusion that neither makes "
        "often is not shown.",
    ),
    "comparison": (
        "The same images, explained by both runs",
        "Class-specific maps of both networks, each on its own scale. The images were chosen by the predictions of the "
        "first run, so they do not show which is better: compare the test accuracies. Grad-CAM is as coarse as the map "
        "that it reads.",
    ),
}
