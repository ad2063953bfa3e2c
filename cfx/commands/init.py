"""`cfx init FOLDER`: configurations to start from, written from what lies in a folder of images.

Nothing is guessed in silence: every line says in a comment where it comes from, and what could not be found out stands
there as a line to fill in, which no run accepts.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from cfx.core.errors import InputError
from cfx.data import decode, volume_file
from cfx.data.listing import kept
from cfx.data.table import Table, number, some
from cfx.runtime.config import expanded
from cfx.runtime.files import write_whole

_TABLES = (".csv", ".tsv")
_LABELS = ("label", "class", "diagnosis", "dx", "group", "target", "y", "finding", "cdr")
_MOST = 12  # classes above which a column is no label
_SIDE = 64  # pixels or voxels a side that a generator of two CPU cores learns in minutes
_BATCH = 16  # images of that size in a step
Lines = dict[str, tuple[Any, str]]
"""Keys with their values and comments."""


@dataclass(frozen=True)
class Found:
    """What lies in a folder.

    Attributes:
        words: It in a few words.
        data: Keys of the images to explain.
        reference: Keys that differ for the labelled validation images, if there are any.
        train: Keys that differ for the images to train on.
        classes: Names of the classes, if they are known.
        dims: Spatial axes of an image.
        images: Number of images to train on.
        pixels: Pixels or voxels of an image as it will be read.
    """

    words: str
    data: Lines
    reference: Lines | None = None
    train: Lines = field(default_factory=dict)
    classes: Sequence[str] = ()
    dims: int = 2
    images: int = _BATCH
    pixels: int = _SIDE**2

    def batch(self, most: int) -> int:
        """Images of a step, a power of 2: a quarter of `most` at least for want of memory, and no more than there are.

        Args:
            most: How many small ones.
        """
        room = min(most, max(most // 4, most * _SIDE**2 // self.pixels), max(1, int(0.8 * self.images)))
        return int(2 ** (room.bit_length() - 1))


def init(folder: Path, out: Path, name: str | None = None) -> str:
    """Write `<name>-generator.yaml`, `<name>-classifier.yaml` and `<name>-explain.yaml`, and say what comes next.

    Args:
        folder: Folder of NIfTI volumes or pictures, with or without a table or a subfolder a class; an npz file or a
            folder with one; a zarr store.
        out: Where to write.
        name: Name of the runs; by default the folder's.

    Raises:
        InputError: no such folder, no images in it, a user or a variable in a path that does not exist, or a file that
            would be overwritten.
    """
    folder, out = expanded(folder, "folder"), expanded(out, "out")
    found = look(folder)
    name = name or re.sub(r"\W+", "-", folder.resolve().stem).strip("-").lower() or "images"
    files = {
        out / f"{name}-generator.yaml": _generator(name, found),
        out / f"{name}-classifier.yaml": _classifier(name, found),
        out / f"{name}-explain.yaml": _explain(name, found),
    }
    if there := [file for file in files if file.exists()]:
        raise InputError(f"{there[0]}: expected no such file yet; give --name or --out, or remove it")
    for file, text in files.items():
        write_whole(file, text)
    generator, classifier, explain = files
    return (
        f"found {found.words}\nwrote {generator}, {classifier}, {explain}\n"
        f"next: look through them; cfx check {generator}; cfx train {generator}; put your own classifier into "
        f"{explain.name} (or cfx train {classifier}); cfx check {explain}; cfx explain {explain}"
    )


def look(folder: Path) -> Found:
    """What lies there.

    Raises:
        InputError: no such folder, or no images in it.
    """
    if folder.suffix == ".npz" and folder.is_file():
        return _npz(folder)
    if not folder.is_dir():
        raise InputError(f"folder: expected a folder of images, an npz file or a zarr store, found none at {folder}")
    if (folder / "zarr.json").is_file():
        return _zarr(folder)
    files = kept(folder)
    for suffixes, words, kind in (
        (volume_file.SUFFIXES, "NIfTI volumes", "nifti"),
        (decode.SUFFIXES, "pictures", "png"),
    ):
        images = [f for f in files if f.name.lower().endswith(suffixes) and not _is_mask(f.relative_to(folder))]
        if images:
            return _folder(folder, files, images, words, kind)
    stores = [f for f in files if f.suffix == ".npz"] + [f.parent for f in files if f.name == "zarr.json"]
    if not stores:
        wanted = "NIfTI volumes, pictures, an npz file or a zarr store"
        kinds = Counter(f.suffix.lower() or f.name for f in files)
        there = "but " + ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(8)) if kinds else "it is empty"
        raise InputError(f"folder: found no images in {folder}, {there}; expected {wanted}")
    return look(stores[0])


def _is_mask(path: Path) -> bool:
    return "mask" in path.as_posix().lower() or any(part.lower() in ("seg", "segmentations") for part in path.parts)


def _folder(folder: Path, files: Sequence[Path], images: Sequence[Path], words: str, kind: str) -> Found:
    """Images one a file."""
    above = [f for f in folder.parent.iterdir() if f.is_file()]
    tables = [f for f in (*files, *sorted(above)) if f.suffix.lower() in _TABLES]
    described = next((d for d in (_described(table, images, folder) for table in tables) if d), None)
    lines: Lines = {"kind": (kind, f"{len(images)} {words}"), "path": (str(folder), "")}
    classes: Sequence[str] = ()
    if described:
        lines |= described[0]
        classes = described[1]
    elif kind == "png" and all(len(f.relative_to(folder).parts) > 1 for f in images):
        counts = Counter(f.relative_to(folder).parts[0] for f in images)
        classes = sorted(counts)
        lines["classes"] = (classes, "the subfolders: " + _counted(counts))
    else:
        lines["table"] = (None, "no csv found that names the files: without one, images have no label")
    masks = [
        f
        for f in files
        if _is_mask(f.relative_to(folder)) and f.name.lower().endswith((*volume_file.SUFFIXES, *decode.SUFFIXES))
    ]
    if masks:
        lines["masks"] = (str(masks[0].parent), f"{len(masks)} masks, by their names")
    dims, pixels = 2, _SIDE**2
    if kind == "nifti":
        shape, words_of = _grid(images[0])
        pixels = prod(shape)
        lines["shape"] = (shape, words_of)
        lines["window"] = (None, "fixed intensities that become -1 and 1 (CT: [-100, 300]); else percentiles of each")
        lines["slice_axis"] = (None, "axial, coronal or sagittal: one 2D slice a volume, which trains far faster")
        dims = 3
    else:
        lines |= {"size": (_SIDE, "resized to this; 128 shows more and trains about four times longer")}
        lines |= {"channels": (1, "grey; 3 for colour")}
    said = f", a table ({described[0]['table'][0]})" if described else ""
    return Found(
        f"{len(images)} {words} in {folder}{said}; {_classes_words(classes)}", lines, classes=classes, dims=dims,
        images=len(images), pixels=pixels,
    )  # fmt: skip


def _described(path: Path, images: Sequence[Path], folder: Path) -> tuple[Lines, Sequence[str]] | None:
    """Keys of a table that names the images, and its classes; None if it names none of them."""
    try:
        table = Table.read(path)
    except InputError:
        return None
    names = {name for f in images for name in (f.name, _bare(f), f.relative_to(folder).as_posix())}
    known = {column: sum(cell in names for cell in cells) for column, cells in table.columns.items()}
    filename = max(known, key=lambda column: known[column])
    if not known[filename]:
        return None
    lines: Lines = {
        "table": (str(path), f"{len(table.columns[filename])} rows"),
        "filename": (filename, f"names {known[filename]} of the {len(images)} files"),
    }
    label = _label(table, filename)
    counts = Counter(cell for cell in table.columns[label] if cell) if label else Counter[str]()
    none = f"no column looks like one; there are {some(table.columns)}"
    lines["label"] = (label, _counted(counts) if label else none)
    numbers = all(number(c) is not None for c in counts)
    classes = [] if numbers else sorted(counts)
    if classes:
        lines["classes"] = (classes, "in label order: the first is class 0")
    return lines, classes or [f"class {c}" for c in sorted(counts, key=float)]


def _label(table: Table, filename: str) -> str | None:
    """The column that looks like a label: by its name, or the only one with few different texts."""
    few = {c: len({cell for cell in cells if cell}) for c, cells in table.columns.items() if c != filename}
    named = [c for c in few if c.lower() in _LABELS and 2 <= few[c] <= _MOST]
    text = [c for c in few if 2 <= few[c] <= _MOST and not all(number(v) is not None for v in table.columns[c] if v)]
    return named[0] if named else text[0] if len(text) == 1 else None


def _bare(file: Path) -> str:
    name = file.name
    return next((name[: -len(s)] for s in (".nii.gz", file.suffix) if name.endswith(s)), name)


def _grid(file: Path) -> tuple[list[int], str]:
    """A grid about as a volume is shaped, of at most `_SIDE` voxels a side and none finer than its own, and why."""
    import nibabel

    try:
        image = nibabel.Nifti1Image.from_filename(file)
        stored = np.array(image.shape[:3]) * np.array(image.header.get_zooms()[:3], np.float64)
        extent = np.empty(3)
        extent[nibabel.io_orientation(image.affine)[:, 0].astype(int)] = stored  # to the right, front and top
    except Exception as error:
        raise InputError(f"{file}: expected a NIfTI volume, {type(error).__name__}: {error}") from error
    own = extent.max() / min(image.header.get_zooms()[:3])  # voxels of the longest side, by the finest spacing
    longest = max(8, int(min(_SIDE, own + 1e-3) // 8 * 8))
    shape = [int(-(-side * longest // extent.max() // 8) * 8) for side in extent]
    mm = " x ".join(f"{side:.0f}" for side in extent)
    own_words = "" if longest == _SIDE else ", no finer than the file's own"
    return shape, f"voxels a side, multiples of 8{own_words}, of a field of view of {mm} mm (the first file's)"


def _npz(path: Path) -> Found:
    """Arrays of an npz file, MedMNIST's names."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = [key.removesuffix("_images") for key in arrays.files if key.endswith("_images")]
            if not splits:
                raise InputError(f"{path}: expected arrays named <split>_images, got {some(arrays.files)}")
            shape = arrays[f"{splits[0]}_images"].shape
            labels = arrays[f"{splits[0]}_labels"] if f"{splits[0]}_labels" in arrays.files else None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected an npz file of plain arrays, {error}") from error

    def pick(*wanted: str) -> str | None:
        return next((s for w in wanted for s in splits if s == w), None)

    first = pick("test") or splits[-1]
    lines: Lines = {"kind": ("npz", f"splits {some(splits)}"), "path": (str(path), ""), "split": (first, "")}
    if labels is None:
        lines["labelled"] = (False, f"no array {splits[0]}_labels")
    lines["size"] = (32 if max(shape[1:3]) <= 32 else _SIDE, f"resized from {shape[1:]}")
    lines["classes"] = (None, "names in label order, such as [normal, pneumonia]")
    val = pick("val", "validation")
    dims = 3 if len(shape) == 5 or (len(shape) == 4 and shape[-1] not in (1, 3)) else 2
    reference: Lines | None = {"split": (val, "")} if val and labels is not None else None
    train: Lines = {"split": (pick("train") or first, "")}
    side, words = lines["size"][0], f"{path} with the splits {some(splits)}"
    return Found(words, lines, reference, train, _numbered(labels), dims, shape[0], side**dims)


def _numbered(labels: npt.NDArray[Any] | None) -> list[str]:
    """Classes without names, of an array of numbers; none of several labels a row."""
    if labels is None or labels.size != len(labels):
        return []
    return [f"class {k}" for k in range(int(labels.max()) + 1)]


def _zarr(path: Path) -> Found:
    """Arrays of a zarr store."""
    import zarr

    arrays = dict(zarr.open_group(path, mode="r").arrays())
    images = next((n for n, a in arrays.items() if a.ndim in (4, 5)), None)
    if images is None:
        raise InputError(f"{path}: expected an array (n, c, *space), got {[(n, a.shape) for n, a in arrays.items()]}")
    n = arrays[images].shape[0]
    one = [name for name, a in arrays.items() if a.shape == (n,) and np.dtype(a.dtype).kind in "biu"]
    lines: Lines = {
        "kind": ("zarr", f"arrays {some(arrays)}"),
        "path": (str(path), ""),
        "images": (images, str(arrays[images].shape)),
        "labels": (one[0] if one else None, "array of classes" if one else "no array of whole numbers, one a row"),
    }
    classes = _numbered(np.asarray(arrays[one[0]][:])) if one else []
    space, words = arrays[images].shape[2:], f"a zarr store of {n} images at {path}"
    return Found(words, lines, classes=classes, dims=len(space), images=n, pixels=prod(space))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _classes_words(classes: Sequence[str]) -> str:
    return f"{len(classes)} classes" if classes else "no labels"


def _generator(name: str, found: Found) -> str:
    labels = len(found.classes) or None
    network = "{name: patch-unet, patch: 4, channels: [64, 96], attention: [false, true], features: 16}"
    return _page(
        f"A generator of such images, {'one for each class' if labels else 'without labels'}: cfx train THIS. "
        "Minutes for 64 x 64 slices on two CPU cores, hours for volumes; a GPU is used where there is one.",
        [
            f"name: {name}-generator",
            *_block("data", found.data | found.train),
            "validation: 0.1  # share of the images held out",
            f"network: {network}",
            f"objective: {{kind: diffusion, prediction: v, classes: {yaml_text(labels)}, "
            f"label_dropout: {0.1 if labels else 0.0}, "
            "schedule: {num_train_timesteps: 1000, beta_schedule: squaredcos_cap_v2}}",
            "optimizer: {lr: 8e-4, warmup: 100, cosine: true" + (", class_lr: 10}" if labels else "}"),
            f"batch_size: {found.batch(_BATCH)}",
            "steps: 3000  # more is better until the validation loss stands still: see log.jsonl",
            "ema: 0.995",
            "save_every: 500",
        ],
    )


def _classifier(name: str, found: Found) -> str:
    return _page(
        "A classifier, for those who have none of their own yet: cfx train THIS.",
        [
            f"name: {name}-classifier",
            *_block("data", found.data | found.train),
            "validation: 0.2",
            "network: {name: cnn}",
            "objective: {kind: classifier, label_smoothing: 0.02, shift: 3, noise: 0.05}",
            "optimizer: {lr: 1e-3, warmup: 50, cosine: true}",
            f"batch_size: {found.batch(2 * _BATCH)}",
            "steps: 600",
            "ema: 0.99",
        ],
    )


def _explain(name: str, found: Found) -> str:
    reference = [
        "# reference: {...}  # labelled images, none of those to explain: how sure must an edit make the classifier?"
    ]
    if found.reference:
        reference = _block("reference", found.data | found.reference)
    return _page(
        "Which change makes the classifier decide otherwise? cfx check THIS, then cfx explain THIS.",
        [
            f"name: {name}",
            *_block("data", found.data),
            *reference,
            f"classifier: runs/{name}-classifier/checkpoint  # or your own: docs/own-classifier.md",
            f"generator: runs/{name}-generator/checkpoint",
            "# oracle: ...  # an independent classifier of the same classes, which judges the edits",
            "rows: 48  # explain this many of the first images; remove the line for all",
        ],
    )


def _page(head: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {head}", *lines]) + "\n"


def _block(key: str, lines: Lines) -> list[str]:
    """A mapping, one key a line; what is not known stands there as a comment."""
    made = [f"{key}:"]
    for name, (value, comment) in lines.items():
        text = f"{name}: {yaml_text(value)}" if value is not None else f"# {name}: ..."
        made.append(f"  {text}" + (f"  # {comment}" if comment else ""))
    return made


def yaml_text(value: object) -> str:
    """A value as YAML writes it in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")
