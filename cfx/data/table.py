"""The table beside a folder of images: which file, whose image, which covariates; and what counts as a missing value.

Cells are text until they are used. A cell of `MISSING` says that nothing is known, in whatever way the program that
wrote the table says so (pandas, R, Excel, SQL and SAS each have their own). Covariates are columns of numbers, or of
texts that repeat, which become codes: the place of each text among the texts of the column in alphabetical order.
"""

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from cfx.core.cohort import SUBJECT
from cfx.core.errors import CfxWarning, InputError

MISSING = frozenset(
    ("", "-", "--", "\u2013", "\u2014", "?", "??", ".", "..", "na", "n/a", "n.a.", "n.a", "#n/a", "#n/a n/a", "#na",
     "nan", "-nan", "+nan", "<na>", "<nan>", "nat", "null", "(null)", "none", "\\n", "1.#ind", "-1.#ind", "1.#qnan",
     "-1.#qnan", "#null!", "#value!", "#div/0!", "#ref!", "#name?", "#num!")
)  # fmt: skip
"""What stands for no value, in lower case."""

UNSURE = frozenset(
    ("unknown", "unk", "missing", "not available", "not known", "not applicable", "not done", "no data", "tbd",
     "undefined", "undetermined", "unspecified", "unlabelled", "unlabeled", "invalid")
)  # fmt: skip
"""Words that may be a category of their own, but more often say that nothing is known; among numbers they do."""

SUBJECTS = (SUBJECT, "subjectid", "participantid", "patientid")
"""Columns that say whose an image is where no other is named, without capitals and signs; the first that is there."""

_WHOSE = frozenset(
    ("patient", "patientname", "patientno", "patientnr", "patientnumber", "idpatient", "ptid", "ptno", "pid", "rid",
     "mrn", "sub", "subid", "subj", "subjid", "subjectno", "subjectnumber", "participant", "person", "personid",
     "individual", "individualid", "animal", "animalid", "caseid", "eid", "id")
)  # fmt: skip
"""Columns that probably say whose an image is, likewise."""
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # as Excel saves "Unicode text"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MANGLED = re.compile(r"[+-]?\d+(,\d+|([.,]\d+)?\s*%)")  # 70,5 or 12 %
_UNITS = r"\s+[A-Za-z]{1,6}|[yY](rs?|ears?)?|[mM](o|onths?)?|[wWdD]|kg|g|mg|cm|mm|ml"
_MEASURED = re.compile(rf"[+-]?\d+([.,]\d+)?({_UNITS})")  # 70 y, 071Y, but also 3 T, of which there are few
_FEW = 10  # texts, where any repeats, are categories
_ODD, _NUMBERS = 2, 5  # different texts that may stand among different numbers, each among so many
_EXACT = 2**53  # whole numbers up to here are themselves as float64


def some(values: Iterable[object], most: int = 8) -> str:
    """The first few values as text, and how many there are in all."""
    values = list(values)
    more = f", ... {len(values)} in all" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


def missing(cell: str) -> bool:
    """Whether a cell says that nothing is known."""
    return cell.lower() in MISSING


def number(cell: str) -> float | None:
    """The cell as a finite number, None if it is not one."""
    value = float(cell) if _NUMBER.fullmatch(cell) else float("inf")
    return value if abs(value) < float("inf") else None


@dataclass(frozen=True)
class Covariates:
    """What is known of every image besides its label.

    Attributes:
        columns: Numbers `(n,)` by name; NaN where nothing is known.
        categories: What the codes of a column stand for: code k is text number k.
    """

    columns: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A csv file with a header, every cell as text.

    Attributes:
        path: Where it was read.
        columns: Cells of every column, in the order of the rows.
        comma: Whether numbers may have a decimal comma, as they do where semicolons part the cells.
    """

    path: Path
    columns: dict[str, list[str]]
    comma: bool = False

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read a file whose first line names the columns, parted by commas, semicolons or tabs as that line is.

        Rows without any text are left out, as is a column without a name, which is where pandas puts row numbers.

        Raises:
            InputError: no such file, one that is no text in UTF-8 or UTF-16 (the message names the row), no rows, a
                column named twice, or a row with more or fewer cells than the header.
        """
        if not path.is_file():
            raise InputError(f"table: expected a csv file, found none at {path}")
        text = _text(path)
        separator = _separator(text)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            rows = [[cell.strip() for cell in row] for row in lines]
        except csv.Error as error:
            raise InputError(f"{path}: expected comma-separated text, but line {lines.line_num}: {error}") from error
        rows = [row for row in rows if any(row)]
        if len(rows) < 2:
            raise InputError(f"{path}: expected a header and at least one row, got {len(rows)} lines")
        header, body = rows[0], rows[1:]
        if twice := {name for name in header if name and header.count(name) > 1}:
            raise InputError(f"{path}: columns named more than once: {some(sorted(twice))}")
        for at, row in enumerate(body, start=1):
            if len(row) != len(header):
                raise InputError(f"{path}: row {at} has {len(row)} cells, the header names {len(header)} columns")
        columns = {name: [row[i] for row in body] for i, name in enumerate(header) if name}
        return cls(path, columns, separator == ";")

    def column(self, name: str, what: str) -> list[str]:
        """The cells of a column, none of them empty.

        Args:
            name: The column.
            what: The setting that names it, for the error message.

        Raises:
            InputError: no such column (the message lists those there are), or empty cells.
        """
        if name not in self.columns:
            raise InputError(f"{what}: no column {name!r} in {self.path}; it has {some(self.columns, 40)}")
        cells = self.columns[name]
        if empty := [i for i, cell in enumerate(cells, start=1) if not cell]:
            raise InputError(f"{self.path}: column {name!r} is empty in rows {some(empty)}")
        return cells

    def names(self, column: str) -> tuple[str, ...]:
        """The file names, each once.

        Raises:
            InputError: as `column`, or a name that stands in two rows.
        """
        cells = self.column(column, "filename")
        if twice := sorted(name for name, times in Counter(cells).items() if times > 1):
            raise InputError(f"{self.path}: column {column!r} names these more than once: {some(twice)}")
        return tuple(cells)

    def covariates(self, without: Sequence[str], subject: str | None = None) -> Covariates:
        """Every other column that is known of any row and is a covariate, and whose each image is.

        A column of numbers is one, and a column of texts that repeat: few (10), or at most half of them different. One
        whose texts are all different names rows and is left out. Where most cells are numbers, or all different cells
        but a few, other texts count as missing.

        Args:
            without: Columns that are something else.
            subject: Column that says whose an image is; by default the first of `SUBJECTS` that is there. It becomes
                the covariate `subject`, NaN where it is missing.

        Raises:
            InputError: no such column as `subject`.

        Warns:
            CfxWarning: a column loses texts by being read as numbers, or is left out though its texts repeat.
        """
        if subject is not None and subject not in self.columns:
            raise InputError(f"subject: no column {subject!r} in {self.path}; it has {some(self.columns, 40)}")
        whose = subject or self._subjects(without)
        if whose is None:
            self._doubt_subjects(without)
        found: dict[str, tuple[Tensor, tuple[str, ...]]] = {}
        for name, cells in self.columns.items():
            if name == whose:
                found[SUBJECT] = _identities(cells)
            elif name not in without and (made := self._covariate(name, cells)) is not None:
                found.setdefault(name, made)
        return Covariates(
            {name: values for name, (values, _) in found.items()},
            {name: texts for name, (_, texts) in found.items() if texts},
        )

    def _subjects(self, without: Sequence[str]) -> str | None:
        """The column that says whose an image is by its name."""
        known = {_plain(name): name for name in reversed(self.columns) if name not in without}
        return next((known[name] for name in SUBJECTS if name in known), None)

    def _doubt_subjects(self, without: Sequence[str]) -> None:
        """Say which columns may say whose an image is, where rows share their texts; two texts are patient or not."""
        for name in [name for name in self.columns if _plain(name) in _WHOSE and name not in without]:
            present = [cell for cell in self.columns[name] if not missing(cell)]
            if 2 < len(set(present)) < len(present):
                self._warn(
                    f"column {name!r} has {len(set(present))} different texts in {len(present)} rows; if it says whose "
                    f"an image is, give `subject: {name}`, or images of one subject are held out and trained on"
                )

    def _covariate(self, name: str, cells: Sequence[str]) -> tuple[Tensor, tuple[str, ...]] | None:
        """The numbers of a column and what they stand for, or None where it is no covariate."""
        present = [cell for cell in cells if not missing(cell)]
        values = [self._number(cell) for cell in cells]
        odd = [i for i, (cell, v) in enumerate(zip(cells, values, strict=True)) if v is None and not missing(cell)]
        if present and (2 * len(odd) < len(present) or _numeric(cells, values, odd)):
            if odd:
                came = some([f"{cells[i]!r} in row {i + 1}" for i in odd])
                self._warn(f"column {name!r} holds numbers, but also {came}; these count as missing")
            return torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64), ()
        return codes(cells) if present and self._repeats(name, present) else None

    def _repeats(self, name: str, texts: Sequence[str]) -> bool:
        """Whether texts are categories; say so where that is in doubt."""
        different, n = len(set(texts)), len(texts)
        categories = different < n and (different <= _FEW or 2 * different <= n)
        if any(2 * sum(map(bool, map(kind.fullmatch, texts))) > n for kind in (_MANGLED, _MEASURED)[: 2 - categories]):
            self._warn(f"column {name!r} is left out: expected numbers such as 70.5, got {texts[0]!r}")
        elif categories:
            return True
        elif different < n:
            self._warn(
                f"column {name!r} is left out: {different} different texts in {n} rows are no categories (if it says "
                f"whose an image is, give `subject: {name}`)"
            )
        return False

    def _number(self, cell: str) -> float | None:
        return number(cell.replace(",", ".") if self.comma and cell.count(",") == 1 else cell)

    def _warn(self, message: str) -> None:
        warnings.warn(f"{self.path}: {message}", CfxWarning, stacklevel=2)


def _numeric(cells: Sequence[str], values: Sequence[float | None], odd: Sequence[int]) -> bool:
    """Whether a column is one of numbers though many of its cells are not: the same few words, again and again."""
    numbers, words = {v for v in values if v is not None}, {cells[i].lower() for i in odd}
    return len(numbers) > 1 and (words <= UNSURE or (len(numbers) >= _NUMBERS * len(words) and len(words) <= _ODD))


def _plain(name: str) -> str:
    """The name of a column without capitals and signs."""
    return re.sub(r"[\W_]", "", name).lower()


def _text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 where its first bytes say so."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"table: {path} cannot be read ({error})") from error
    encoding = _MARKS.get(raw[:2], "utf-8-sig")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        row = len(re.split(rb"\r\n|\r|\n", raw[: error.start])) - 1
        raise InputError(
            f"{path}: expected comma-separated text in UTF-8, but {'the header' if not row else f'row {row}'} is in "
            f"another encoding, or this is no text ({error.reason}); save it as CSV UTF-8"
        ) from error
    if "\0" in text:
        raise InputError(
            f"{path}: expected comma-separated text in UTF-8, but it holds zero bytes; save it as CSV UTF-8"
        )
    return text


def _separator(text: str) -> str:
    """What parts the cells: of comma, semicolon and tab the one that is most often in the header."""
    header = re.sub(r'"[^"]*"', "", next((line for line in text.splitlines() if line.strip()), ""))
    return max((",", ";", "\t"), key=header.count)


def codes(cells: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Texts as their places in the alphabet, NaN where they are missing, and the texts."""
    texts = tuple(sorted({cell for cell in cells if not missing(cell)}))
    place = {text: float(k) for k, text in enumerate(texts)}
    return torch.tensor([place.get(cell, float("nan")) for cell in cells], dtype=torch.float64), texts


def _identities(cells: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Whose each row is: whole numbers written as such are themselves, all else is text, so that 01 is not 1."""
    present = [cell for cell in cells if not missing(cell)]
    if any(not cell.isdecimal() or str(int(cell)) != cell or int(cell) > _EXACT for cell in present):
        return codes(cells)
    values = [float("nan") if missing(cell) else float(cell) for cell in cells]
    return torch.tensor(values, dtype=torch.float64), ()
