import pytest

from gnnrl_lightning.cli import main
from tests.support.workplace import working_in


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a network of the user's own and its configuration; the tests run in it."""
    with working_in(tmp_path_factory.mktemp("workplace")) as folder:
        yield folder


@pytest.fixture(scope="module")
def fitted(workplace):
    """The folder of a finished run."""
    main(["fit", "--config", "small.yaml", "--run.name", "fitted"])
    return workplace / "runs" / "fitted"
