"""The 43 classes of the German Traffic Sign Recognition Benchmark, and their families (Stallkamp et al., 2012)."""

from __future__ import annotations

# In the order of the labels, 0 to 42.
GTSRB_CLASSES: tuple[str, ...] = (
    "Speed limit 20",
    "Speed limit 30",
    "Speed limit 50",
    "Speed limit 60",
    "Speed limit 70",
    "Speed limit 80",
    "End of speed limit 80",
    "Speed limit 100",
    "Speed limit 120",
    "No passing",
    "No passing for trucks",
    "Priority at next intersection",
    "Priority road",
    "Yield",
    "Stop",
    "No vehicles",
    "No trucks",
    "No entry",
    "General caution",
    "Curve left",
    "Curve right",
    "Double curve",
    "Bumpy road",
    "Slippery road",
    "Road narrows on the right",
    "Road work",
    "Traffic signals",
    "Pedestrians",
    "Children",
    "Bicycles",
    "Ice or snow",
    "Wild animals",
    "End of all limits",
    "Turn right ahead",
    "Turn left ahead",
    "Ahead only",
    "Straight or right",
    "Straight or left",
    "Keep right",
    "Keep left",
    "Roundabout",
    "End of no passing",
    "End of no passing for trucks",
)

# The subsets of the paper, each with similar shapes and colors.
GTSRB_FAMILIES: dict[str, tuple[str, ...]] = {
    "Mandatory": GTSRB_CLASSES[33:41],
    "Speed limits": (*GTSRB_CLASSES[:6], *GTSRB_CLASSES[7:9]),
    "Unique": ("Priority road", "Yield", "Stop", "No entry"),
    "Danger": ("Priority at next intersection", *GTSRB_CLASSES[18:32]),
    "Other prohibitions": ("No passing", "No passing for trucks", "No vehicles", "No trucks"),
    "Ends of limits": (
        *("End of speed limit 80", "End of all limits", "End of no passing", "End of no passing for trucks"),
    ),
}
