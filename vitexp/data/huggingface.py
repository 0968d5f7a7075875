"""Data sets of the Hugging Face Hub, or folders laid out like them: images in Parquet files.

Parquet files are named after their part (data/train-00000-of-00002.parquet, train.parquet) or lie in a folder of that
name (train/0000.parquet). A column contains images, as structs {bytes, path} or as bytes; another one the classes, as
integers or texts. The metadata that the Hub's libraries write say which these are and name the classes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitexp.data.parquet import ParquetImages, column_of, reading, row_groups
from vitexp.data.parts import (
    Part,
    about_roles,
    alike,
    natural,
    part_of,
    rank,
    refuse_unusable_classes,
    roles,
    test_count,
    too_few_images,
)
from vitexp.data.source import DataError, Source, Split, SplitName, TestPart, file_errors, printable, refuse
from vitexp.errors import reason, require
from vitexp.options import Doc, Field, Fraction
from vitexp.options import Path as PathOption
from vitexp.text import shortened

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*){0,2}", re.ASCII)  # name, owner/name or owner/name/configuration
_SHARD = re.compile(r"(?P<part>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")
_CONVERTED = "refs/convert/parquet"  # the branch on which the Hub stores data sets of other formats as Parquet
_IMAGE_NAMES, _LABEL_NAMES = ("image", "img", "images"), ("label", "labels", "class", "target")


class HuggingFace(Source):
    """Parquet files of images and labels, in a folder or from the Hugging Face Hub.

    train, validation and test parts are recognized by name. Their roles, and what happens if one is missing, are those
    of `vitexp.data.folder.Folder`. A part without labels (null, or -1, as the Hub publishes test sets of competitions)
    is not used. Downloaded files are kept in the cache of huggingface_hub; HF_HOME and HF_ENDPOINT change its place and
    the server. No code of a data set is executed.
    """

    identity: ClassVar[tuple[str, ...]] = ("path",)
    location: ClassVar[tuple[str, ...]] = ("path", "download")

    def __init__(
        self,
        *,
        path: Annotated[
            PathOption,
            Doc("folder with Parquet files, or a name on the Hub: NAME, OWNER/NAME or OWNER/NAME/CONFIGURATION"),
        ],
        download: Annotated[bool, Doc("download a data set that is missing, or update it")] = False,
        image_column: Annotated[str | None, Doc("column of the images; null: found by its type or name")] = None,
        label_column: Annotated[str | None, Doc("column of the classes; null: found by its type or name")] = None,
        test_fraction: Annotated[
            Fraction, Doc("fraction of every class that becomes the test set if there is no other part than train")
        ] = 0.2,
        split_seed: Annotated[
            int, Field(ge=0, le=2**32 - 1), Doc("seed that selects the test images, independent of the seed of the run")
        ] = 0,
    ) -> None:
        self.path = path
        self.download = download
        self.image_column, self.label_column = image_column, label_column
        self.test_fraction, self.split_seed = test_fraction, split_seed

    @property
    def classes(self) -> list[str]:
        if not self._class_names:
            raise DataError(f"column {printable(self._columns[1])} of {self.path} contains no class.")
        return [_readable(name, label) for label, name in enumerate(self._class_names)]

    def split(self, name: SplitName) -> Split:
        _, test = roles(self._found)
        if test is None:
            return self._rows_of("train", self._chosen == (name == "test"))
        return self._rows_of("train" if name == "train" else test)

    def validation(self) -> Split | None:
        val, _ = roles(self._found)
        return None if val is None else self._rows_of(val)

    def refuse_unusable(self, *, for_training: bool = True) -> None:
        require("pyarrow", needed_by="data=huggingface")
        with file_errors():
            if self.download and not Path(self.path).expanduser().is_dir():
                return
        found, classes = self._found, self.classes
        if not for_training:
            return
        refuse_unusable_classes(classes, name=self.path)
        counts = np.bincount(self._labels["train"], minlength=len(classes)).tolist()
        parts = dict(zip(("validation", "test"), roles(found), strict=True))
        few = too_few_images(
            dict(zip(classes, counts, strict=True)),
            where=f"{printable(found['train'])} of {self.path}",
            split_off=[name for name, part in parts.items() if part is None],
        )
        refuse([alike(classes, where=self.path), few])

    def test_part(self) -> TestPart:
        part = next(part for part in ("test", "val", "train") if part in self._found)
        return TestPart(
            classes=self.classes,
            split=self._rows_of(part),
            numbered=self._are_numbered,
            about=f"all of {self._found[part]}",
        )

    def describe(self) -> str:
        about = [
            f"{printable(name)} has no labeled images and is not used"
            for part, name in self._parts.items()
            if part not in self._found
        ]
        about.append(about_roles(self._found, test_fraction=self.test_fraction, split_seed=self.split_seed))
        return "; ".join(filter(None, about))

    def unread(self) -> str:
        if not self._other_files:
            return ""
        names = shortened([printable(name) for name in self._other_files])
        return f"Parquet files whose names contain no part, such as train, were not read: {names}"

    @cached_property
    def _folder(self) -> Path:
        """The folder of the Parquet files, after downloading them if necessary."""
        require("pyarrow", needed_by="data=huggingface")
        folder = Path(self.path).expanduser()
        with file_errors():
            if folder.is_dir():
                return folder
        if not _HUB_NAME.fullmatch(self.path) or ".." in self.path or folder.exists():
            raise DataError(f"data.path={self.path} is neither a folder nor the name of a data set on the Hub.")
        require("huggingface_hub", needed_by=f"data.path={self.path}, which is not a folder,")
        name, configuration = "/".join(self.path.split("/")[:2]), self.path.split("/")[2:]
        for revision in ("main", _CONVERTED):
            snapshot = _snapshot(name, revision, configuration, download=self.download)
            if snapshot is not None and any(snapshot.rglob("*.parquet")):
                return snapshot
        if self.download:
            raise DataError(f"data.path={self.path} has no Parquet files on the Hub; other formats are not read.")
        raise DataError(
            f"data.path={self.path} is neither a folder nor completely downloaded; set data.download=true to download "
            "it."
        )

    @cached_property
    def _files(self) -> dict[Part, list[Path]]:
        """The files of each part, in order."""
        return {part: files for part, (_, files) in self._layout[0].items()}

    @property
    def _parts(self) -> dict[Part, str]:
        return {part: name for part, (name, _) in self._layout[0].items()}

    @property
    def _other_files(self) -> list[str]:
        return self._layout[1]

    @cached_property
    def _layout(self) -> tuple[dict[Part, tuple[str, list[Path]]], list[str]]:
        """The name and the files of each part, and the files that belong to none."""
        with file_errors():
            files = sorted(self._folder.rglob("*.parquet"))
        files = [
            file for file in files if not any(name.startswith(".") for name in file.relative_to(self._folder).parts)
        ]
        if not files:
            raise DataError(f"{self._folder} contains no Parquet files, such as data/train-00000-of-00001.parquet.")
        places: dict[str, dict[Part, tuple[str, list[Path]]]] = {}
        others = []
        for file in files:
            relative = PurePosixPath(file.relative_to(self._folder).as_posix())
            if (found := _part_of_file(relative)) is None:
                others.append(str(relative))
                continue
            part, name, place = found
            known, of_part = places.setdefault(place, {}).setdefault(part, (name, []))
            if known != name:
                raise DataError(f"{self._folder} contains both {known} and {name}; remove or rename one of them.")
            of_part.append(file)
        if not places and len({file.parent for file in files}) == 1:  # as on the Hub: without parts, all is train
            return {"train": ("train", files)}, []
        with_train = sorted(place for place, parts in places.items() if "train" in parts)
        if not with_train:
            raise DataError(f"data.path={self.path} has no train part, such as data/train-00000-of-00001.parquet.")
        if len(with_train) > 1:
            raise DataError(
                f"data.path={self.path} contains several data sets ({shortened(with_train)}); add the name of one, as "
                f"in data.path={self.path}/{with_train[0]}."
            )
        for _, of_part in places[with_train[0]].values():
            _refuse_missing_shards(of_part)
        others += [f"{place}/*" for place in places if place != with_train[0]]
        return places[with_train[0]], others

    @cached_property
    def _schema(self) -> Any:
        import pyarrow.parquet as pq

        return reading(self._files["train"][0], pq.read_schema)

    @cached_property
    def _features(self) -> dict[str, Any]:
        """What the Hub's libraries say about each column; empty for other Parquet files."""
        try:
            features = json.loads((self._schema.metadata or {})[b"huggingface"])["info"]["features"]
        except (KeyError, ValueError, TypeError):
            return {}
        return features if isinstance(features, dict) else {}

    def _type_of(self, column: str) -> str:
        feature = self._features.get(column)
        return str(feature.get("_type")) if isinstance(feature, dict) else ""

    def _names_of(self, column: str) -> list[str]:
        """Return the names of the classes in a column that has any."""
        names = self._features[column].get("names") if self._type_of(column) == "ClassLabel" else None
        return [str(name) for name in names] if isinstance(names, list) else []

    @cached_property
    def _columns(self) -> tuple[str, str]:
        """The columns of images and labels."""
        import pyarrow.types as types

        def is_image(column: str) -> bool:
            kind = self._schema.field(column).type
            if types.is_struct(kind):
                return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
            return bool(types.is_binary(kind) or types.is_large_binary(kind))

        def is_label(column: str) -> bool:
            kind = self._schema.field(column).type
            kind = kind.value_type if types.is_dictionary(kind) else kind
            return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

        return (
            self._column("image_column", self.image_column, is_image, "Image", _IMAGE_NAMES),
            self._column("label_column", self.label_column, is_label, "ClassLabel", _LABEL_NAMES),
        )

    def _column(self, key: str, given: str | None, fits: Any, feature: str, names: Sequence[str]) -> str:
        """Return the column `given`, or the only one that may be meant, by metadata, name or type."""
        columns: list[str] = list(self._schema.names)
        fitting = [column for column in columns if fits(column)]
        if given is not None:
            if given not in fitting:
                kind = f"is of type {self._schema.field(given).type}" if given in columns else "does not exist"
                raise DataError(f"data.{key}={given} {kind}; choose from {shortened(fitting or columns)}.")
            return given
        said = [column for column in fitting if self._type_of(column) == feature]
        named = [column for column in fitting if column.casefold() in names]
        for candidates in (said, named, fitting):
            if len(candidates) == 1:
                return candidates[0]
        choices = said or named or fitting
        if not choices:
            raise DataError(f"{self._files['train'][0]} has no column for data.{key}: it has {shortened(columns)}.")
        raise DataError(f"data.{key} is not clear; set it to {' or '.join(map(printable, choices))}.")

    @cached_property
    def _raw_labels(self) -> dict[Part, Any]:
        """The labels of each part as they are stored, a ChunkedArray each."""
        return {part: column_of(files, self._columns[1]) for part, files in self._files.items()}

    @property
    def _are_numbered(self) -> bool:
        """Whether the metadata name the classes in the order of the labels."""
        return bool(self._names_of(self._columns[1]))

    @property
    def _are_integers(self) -> bool:
        return any(isinstance(value, int) for value in self._raw_labels["train"].unique().to_pylist())

    @cached_property
    def _class_names(self) -> list[str]:
        if names := self._names_of(self._columns[1]):
            return names
        values = {value for labels in self._raw_labels.values() for value in labels.unique().to_pylist()} - {None}
        return list(map(str, sorted(values - {-1}))) if self._are_integers else sorted(values, key=natural)

    @cached_property
    def _labels(self) -> dict[Part, NDArray[np.int64]]:
        """The labels of each part that has any: int64 [N]."""
        names = self._class_names
        number: dict[Any, int] = {label: label for label in range(len(names))}  # of a stored value
        if not self._are_numbered:
            number = {int(name) if self._are_integers else name: label for label, name in enumerate(names)}
        found = {}
        for part, raw in self._raw_labels.items():
            values = raw.to_pylist()
            unknown = [value for value in values if value not in number]
            if part != "train" and len(unknown) == len(values) and set(unknown) <= {None, -1}:
                continue  # unlabeled
            if unknown:
                raise DataError(
                    f"column {printable(self._columns[1])} of {printable(self._parts[part])} contains "
                    f"{unknown[0]!r}, which is not one of the {len(names)} classes."
                )
            found[part] = np.array([number[value] for value in values], np.int64)
        return found

    @property
    def _found(self) -> dict[Part, str]:
        """The names of the parts that have labels."""
        return {part: self._parts[part] for part in self._labels}

    def _rows_of(self, part: Part, chosen: NDArray[np.bool_] | None = None) -> Split:
        """Return the images of a part, or those that are `chosen`, bool [N]."""
        labels, files = self._labels[part], self._files[part]
        rows = np.flatnonzero(np.ones(len(labels), bool) if chosen is None else chosen)
        digest = hashlib.sha256(repr(self._columns).encode() + rows.tobytes())
        for file in files:
            with file_errors():
                info = file.stat()
            digest.update(f"{file.resolve()}\0{info.st_size}\0{info.st_mtime_ns}\n".encode(errors="surrogateescape"))
        groups = tuple(group for file in files for group in row_groups(str(file)))
        return Split(
            labels=labels[rows],
            groups=rows,
            read=ParquetImages(groups, self._columns[0], rows),
            fingerprint=digest.hexdigest(),
        )

    @cached_property
    def _chosen(self) -> NDArray[np.bool_]:
        """Which images of the training part become test images: bool [N]."""
        labels = self._labels["train"]
        chosen = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: rank(self.split_seed, str(row)))
            chosen[rows[: test_count(len(rows), self.test_fraction)]] = True
        return chosen


def _part_of_file(file: PurePosixPath) -> tuple[Part, str, str] | None:
    """Return the part of a Parquet file, its name, and the folder of the data set; None if the path names no part."""
    shard = _SHARD.fullmatch(file.stem)
    stem = shard["part"] if shard else re.sub(r"[-_.]?\d+$", "", file.stem)
    if part := part_of(stem):
        return part, stem, str(file.parent)
    if part := part_of(file.parent.name):
        return part, file.parent.name, str(file.parent.parent)
    return None


def _refuse_missing_shards(files: Sequence[Path]) -> None:
    """Raise DataError if the names say that there are more files, as after an interrupted download."""
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        if shard and int(shard["count"]) != len(files):
            raise DataError(
                f"{file.parent} has {len(files)} of the {int(shard['count'])} files of {shard['part']}; download the "
                "others (data.download=true)."
            )


def _snapshot(name: str, revision: str, configuration: Sequence[str], *, download: bool) -> Path | None:
    """Return the folder of a data set in the cache of huggingface_hub; None if it has no such revision.

    Unless `download`, also None if it is not there, or not completely. Raises DataError if it cannot be downloaded.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import RevisionNotFoundError

    files = "/".join([*configuration, "*.parquet"])
    options: dict[str, Any] = {"revision": revision, "allow_patterns": files, "local_files_only": not download}
    try:
        return Path(snapshot_download(name, repo_type="dataset", **options), *configuration)
    except RevisionNotFoundError:
        return None
    except Exception as error:  # also those of its HTTP library
        if not download:
            return None
        sentence = f"cannot download data.path={name} from {constants.ENDPOINT}: {reason(error).rstrip('.')}."
        raise DataError(sentence) from error


def _readable(name: str, label: int) -> str:
    """Return a class name that fits into a line of a table."""
    if not name.strip():
        return f"class {label}"
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
