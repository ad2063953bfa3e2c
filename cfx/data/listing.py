"""Which files are the images of a cohort, and what is known of each before it is read.

Either a table names them, or they are found in a folder, where subfolders are classes. What programs leave in folders
(hidden files, checkpoints of notebooks, thumbnails) is no image. What looks like one and is not read is said aloud.
"""

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from cfx.core.cohort import SUBJECT
from cfx.core.errors import CfxWarning, InputError
from cfx.data.classes import check_numbers, encode
from cfx.data.table import MISSING, Covariates, Table, codes, some

_LEFT_BEHIND = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "thumbs",
    "thumbnails",
    "__pycache__",
    "~snapshot",
}
_NO_IMAGE = frozenset(
    (".csv", ".tsv", ".txt", ".md", ".rst", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".html", ".htm",
     ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ods", ".py", ".ipynb", ".m", ".r", ".sh", ".log", ".ini", ".cfg",
     ".db", ".sqlite", ".sha256", ".md5", ".zip", ".tar", ".tgz", ".7z", ".rar", ".bval", ".bvec", ".lnk", ".url",
     ".bib", ".tex", ".pkl", ".pt", ".pth", ".ckpt", ".safetensors", ".parquet", ".feather")
)  # fmt: skip
_MASKS = frozenset(
    ("mask", "masks", "seg", "segs", "segmentation", "segmentations", "label", "labels", "annotation", "annotations",
     "groundtruth", "ground_truth")
)  # fmt: skip
"""Folders beside images that probably hold their masks."""
_ENTITY = re.compile(r"(?:^|[/\\])(sub-[A-Za-z0-9]+)(?=[_./\\]|$)")  # whose an image is, in the names of BIDS
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout"}


@dataclass(frozen=True)
class Listing:
    """The images of a cohort, none of them read.

    Attributes:
        ids: One name a row.
        files: Where each is.
        y: Labels, or None.
        classes: Names of the classes, in label order.
        covariates: What else the table knows.
    """

    ids: tuple[str, ...]
    files: list[Path]
    y: Int[Tensor, " n"] | None
    classes: tuple[str, ...]
    covariates: Covariates = field(default_factory=Covariates)


def listed(
    table: Path,
    folder: Path,
    suffixes: Sequence[str],
    *,
    filename: str,
    label: str | None,
    subject: str | None,
    classes: Sequence[str],
) -> Listing:
    """The files that a table names, in its order.

    Args:
        table: A csv file.
        folder: Where the files lie.
        suffixes: What a name in the table may lack.
        filename: Column of names.
        label: Column of labels, or None.
        subject: Column that says whose an image is; None looks for one.
        classes: Names of the classes in label order, or empty.

    Raises:
        InputError: as `Table`, `check_numbers`, `encode` and `find`, or two names of one file.
    """
    read = Table.read(table)
    ids = read.names(filename)
    y, named = None, tuple(classes)
    if label is not None:
        cells, what = read.column(label, "label"), f"{table}: column {label!r}"
        if not classes:
            check_numbers(cells, what)
        y, named = encode(cells, classes, what)
    files = find(folder, ids, suffixes, "path")
    if twice := sorted(str(file) for file, times in Counter(files).items() if times > 1):
        raise InputError(f"{table}: column {filename!r} names one file in several rows: {some(twice)}")
    used = [name for name in (filename, label) if name is not None]
    known = read.covariates(used, subject)
    whose = known if SUBJECT in known.columns else subjects_in(ids)
    columns, categories = {**known.columns, **whose.columns}, {**known.categories, **whose.categories}
    return Listing(ids, files, y, named, Covariates(columns, categories))


def subjects_in(names: Sequence[str]) -> Covariates:
    """Whose each image is, where all names say it as BIDS does (`sub-01_ses-1.png`, `sub-01/anat/T1w.nii`); else none.

    Where one file name is in several class folders, each of these numbers its subjects anew.

    References: Gorgolewski et al. (2016), "The brain imaging data structure".
    """
    found = [_ENTITY.findall(name) for name in names]
    if not all(found):
        return Covariates()
    last = [re.split(r"[/\\]", name)[-1] for name in names]
    above = [re.split(r"[/\\]", name)[0] if len(set(last)) < len(last) else "" for name in names]
    whose = ["/".join(dict.fromkeys((folder, subject[0]))) for folder, subject in zip(above, found, strict=True)]
    values, texts = codes([name.removeprefix("/") for name in whose])
    return Covariates({SUBJECT: values}, {SUBJECT: texts})


def walked(folder: Path, suffixes: Sequence[str], classes: Sequence[str], without: Path | None = None) -> Listing:
    """The images of a folder and its subfolders, which are the classes, in sorted order.

    Folders whose names are whole numbers are these classes. Links to folders are followed.

    Args:
        folder: Where the files lie.
        suffixes: How the names of images end, in lower case.
        classes: Names of the classes in label order, or empty.
        without: A folder in it that holds something else.

    Raises:
        InputError: no such folder, no images, images beside subfolders of images, subfolders that are no classes.

    Warns:
        CfxWarning: files that look like images and are not read, or classes without any.
    """
    found = _visible(folder, suffixes, without)
    files = sorted(file for file in found if file.name.lower().endswith(tuple(suffixes)))
    say_unread(folder, set(found) - set(files))
    if not files:
        raise InputError(f"path: expected images ({some(suffixes, 20)}), found none in {folder}")
    ids = tuple(file.relative_to(folder).as_posix() for file in files)
    folders = [name.split("/")[0] if "/" in name else "" for name in ids]
    if not any(folders):
        return Listing(ids, files, None, tuple(classes), subjects_in(ids))
    _check_masks(folder, ids, classes)
    if "" in folders:
        loose = ids[folders.index("")]
        raise InputError(f"path: {folder} holds both class subfolders and loose images ({loose}); give a table")
    _check_folders(folder, set(folders), without)
    y, named = encode(folders, classes or _names(folders), f"subfolders of {folder}")
    return Listing(ids, files, y, named, subjects_in(ids))


def _check_masks(folder: Path, ids: Sequence[str], classes: Sequence[str]) -> None:
    """Refuse folders that probably hold masks, which would be a class or images of one, unless they are said to be."""
    parts = dict.fromkeys(part for name in ids for part in name.split("/")[:-1])
    if odd := [part for part in parts if part.lower() in _MASKS and part not in classes]:
        raise InputError(
            f"path: the subfolder {odd[0]} of {folder} probably holds masks, which are no class; give it as "
            f"`masks: {folder / odd[0]}` or move it elsewhere, or list it among `classes` if it is one"
        )


def _names(folders: Sequence[str]) -> tuple[str, ...]:
    """Folders as classes where one of them is called `none`, which in a table would be a missing label."""
    names = tuple(sorted(set(folders)))
    others = {name.lower() for name in names} - {"none"}
    return names if len(others) < len(names) and not others & MISSING else ()


def _check_folders(folder: Path, classes: set[str], without: Path | None) -> None:
    """Refuse subfolders that are splits, and name those without images."""
    if len(classes) > 1 and {name.lower() for name in classes} <= _SPLITS:
        raise InputError(
            f"path: the subfolders {some(sorted(classes))} of {folder} are splits of the data, no classes; give one of "
            f"them, such as {folder / min(classes)}"
        )
    there = {path.name for path in folder.iterdir() if path.is_dir() and not _left_behind(path) and path != without}
    if empty := sorted(there - classes):
        _warn(f"{folder}: no image in the subfolders {some(empty)}, which are no classes therefore")


def kept(folder: Path) -> list[Path]:
    """Every file below a folder but those that programs leave behind, in sorted order."""
    return [path for path, left_behind in _files(folder, None, set()) if not left_behind]


def _visible(folder: Path, suffixes: Sequence[str], without: Path | None) -> list[Path]:
    """Every file below a folder but those that programs leave behind; images among these are counted aloud."""
    if not folder.is_dir():
        raise InputError(f"path: expected a folder, found none at {folder}")
    found, hidden = [], []
    for path, left_behind in _files(folder, without, set()):
        if not left_behind:
            found.append(path)
        elif path.name.lower().endswith(tuple(suffixes)) and not path.name.startswith("._"):
            hidden.append(path.relative_to(folder).as_posix())  # ._a.png is not an image but what macOS notes of one
    if hidden:
        _warn(f"{folder}: {len(hidden)} images not read, since they are hidden: {some(sorted(hidden), 3)}")
    return found


def _files(
    folder: Path, without: Path | None, seen: set[str], left_behind: bool = False
) -> Iterator[tuple[Path, bool]]:
    """Every file below a folder, and whether a program left it behind; no folder twice, however links lead there."""
    seen.add(os.path.realpath(folder))
    for path in sorted(folder.iterdir()):
        hidden = left_behind or _left_behind(path)
        if not path.is_dir():
            yield path, hidden
        elif path != without and os.path.realpath(path) not in seen:
            yield from _files(path, without, seen, hidden)


def _left_behind(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LEFT_BEHIND


def say_unread(folder: Path, files: set[Path]) -> None:
    """Warn of files of a folder that may be images and are not read, with their number by kind."""
    odd = [file for file in files if file.suffix.lower() not in _NO_IMAGE and not re.fullmatch(r"[A-Z]{4,}", file.name)]
    if odd:
        kinds = Counter("".join(file.suffixes[-2:] if file.suffix == ".gz" else file.suffix) for file in odd)
        counts = (f"{n} {kind.lower() or 'without suffix'}" for kind, n in sorted(kinds.items()))
        _warn(f"{folder}: {len(odd)} files not read: {some(counts)}")


def _warn(message: str) -> None:
    warnings.warn(message, CfxWarning, stacklevel=2)


def find(folder: Path, names: Sequence[str], suffixes: Sequence[str], what: str) -> list[Path]:
    """The file of every name, which may be written with or without its suffix, as on Windows, or in other letters.

    An umlaut is one character in most tables, and two in the names of files from macOS.

    Args:
        folder: Where the files lie.
        names: Names relative to the folder.
        suffixes: Suffixes to try, with their dot.
        what: The setting that names the folder, for the error message.

    Raises:
        InputError: the folder or some of the files do not exist; the message lists them.
    """
    if not folder.is_dir():
        raise InputError(f"{what}: expected a folder, found none at {folder}")
    ends = ("", *suffixes, *(suffix.upper() for suffix in suffixes))
    tried = [[folder / f"{n}{end}" for n in _spellings(name) for end in ends] for name in names]
    found = [next((path for path in paths if path.is_file()), None) for paths in tried]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise InputError(f"{what}: no file in {folder} for {some(missing)} (tried the suffixes {some(suffixes)})")
    return [path for path in found if path is not None]


def _spellings(name: str) -> Iterable[str]:
    """The ways a file of that name may be written, as given first."""
    plain = name.replace("\\", "/")
    return dict.fromkeys((name, plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))))
