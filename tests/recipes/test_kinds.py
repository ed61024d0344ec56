"""Every recipe by command, on the data it has without options: trains, samples, goes on."""

import pytest
from run_support import in_a_hurry
from tiny_recipes import flags

from fastgan import recipes
from fastgan.cli import main as cli


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capsys):
    """fastgan(args...) -> what it printed; fails where the command fails."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        with pytest.raises(SystemExit) as done:
            cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert not done.value.code, err
        return out

    return run


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_each_kind_trains_samples_and_goes_on(name, fastgan, tmp_path):
    few = ["--batch-size=4", "--device=cpu", "--steps=3", "--out=run"]
    fastgan("train", "--recipe", name, *few, *flags(name))
    fastgan("sample", "run", "--n=4", "--device=cpu")
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert "going on at step 3" in fastgan("train", "--resume=run", "--steps=4")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("*4")]
