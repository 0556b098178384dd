import pytest
from conftest import refused

from gel_lightning.cli.repeats import refuse_repeats


@pytest.mark.parametrize(
    "args",
    [
        ["fit"],
        ["fit", "--data.train_dir", "a", "--data.test_dir=b"],
        ["fit", "--data.test_dir", "a", "--data.test_dir+=x=b", "--data.test_dir+", "y=c"],
        ["compare", "--data.train_dir+=a", "--data.train_dir+=b"],
    ],
)
def test_what_adds_is_taken(args: list[str]) -> None:
    refuse_repeats(args)


@pytest.mark.parametrize(
    "args",
    [
        ["--data.test_dir", "a", "--data.test_dir", "b"],
        ["--data.test_dir=a", "--data.test_dir=b"],
        ["--data.test_dir+=x=a", "--data.test_dir", "b"],
    ],
)
def test_a_plain_repetition_is_refused(args: list[str]) -> None:
    assert refused(lambda: refuse_repeats(["fit", *args])) == (
        "--data.test_dir is given twice, and only the last would count; add to it with --data.test_dir+=NAME=FOLDER"
    )
