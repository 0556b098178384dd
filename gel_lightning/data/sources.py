"""What a part of the data is read from: folders of class folders, or a CSV file of paths and labels."""

from collections.abc import Sequence
from pathlib import Path

from gel_lightning.core.errors import GelError
from gel_lightning.data.folders import LabelledPictures, class_folders, count_left_out, read_class_folders
from gel_lightning.data.tables import is_table, read_pairs, read_table


def read_source(
    places: Sequence[Path], class_names: Sequence[str] | None = None, every_class: bool = True, leave_out: bool = False
) -> LabelledPictures:
    """Lists the pictures of folders, or of one CSV file.

    Args:
        places: one or more folders, or one CSV file.
        class_names: as for :func:`~gel_lightning.data.folders.read_class_folders`, as the following ones.
        every_class: whether all classes must be there.
        leave_out: whether to leave out other classes.

    Raises:
        GelError: as for :func:`~gel_lightning.data.folders.read_class_folders` and
            :func:`~gel_lightning.data.tables.read_table`, or several places of which one is a CSV file.
    """
    if not _is_table(places):
        return read_class_folders(places, class_names, every_class, leave_out)
    return read_table(places[0], class_names, every_class, leave_out)


def source_classes(places: Sequence[Path]) -> list[str]:
    """Lists the names of the classes without reading a picture.

    Raises:
        GelError: as for :func:`read_source`.
    """
    return read_table(places[0]).class_names if _is_table(places) else class_folders(places)


def source_left_out(place: Path, class_names: Sequence[str]) -> dict[str, int]:
    """Counts the pictures of each class that is not one of ``class_names``."""
    if not _is_table([place]):
        return count_left_out([place], class_names)
    labels = [label for _, _, label in read_pairs(place, "label", "--data.train_dir")]
    return {label: labels.count(label) for label in set(labels) - set(class_names)}


def _is_table(places: Sequence[Path]) -> bool:
    tables = [place for place in places if is_table(place)]
    if tables and len(places) > 1:
        raise GelError(f"{tables[0]}: a CSV file stands alone; name all pictures in it (--data.train_dir)")
    return bool(tables)
