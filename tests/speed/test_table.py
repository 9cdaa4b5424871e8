import os

import pytest

from gnnrl_lightning.errors import UserError
from gnnrl_lightning.speed.table import read_table


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("pipe.csv", None, "is no regular file: expected CSV or JSON"),
        ("nowhere.csv", "", r"cannot be read \(.*No such file"),
        ("latin.csv", b"\xe9", "is no table of operators"),
        ("deep.json", b"[" * 100_000, "is no table of operators"),
        (
            "huge.csv",
            f"operator,inputs,outputs,milliseconds\nrelu,0,{10**20},1\n".encode(),
            "has more than 2,147,483,647 channels",
        ),
        ("endless.csv", b"operator,inputs,outputs,milliseconds\nrelu,0,8,1e999\n", "negative or not finite"),
    ],
)
def test_what_is_no_table_of_the_users_is_refused(tmp_path, name, text, reason):
    path = tmp_path / name
    if text is None:
        os.mkfifo(path)
    elif text:
        path.write_bytes(text)
    with pytest.raises(UserError, match=rf"latency.table .*{name} .*{reason}"):
        read_table(path)
