"""What the command line says of itself, completes in a shell, and does without a params file."""

import shutil
import subprocess
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import pipeline_src
from pipeline_src import cli, shell
from pipeline_src.datasets import download
from pipeline_src.datasets.base import FolderParams, datasets
from pipeline_src.methods.base import methods
from pipeline_src.study import shipped
from tests.datasets import published

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """The working directory has no params.yaml."""
    monkeypatch.chdir(tmp_path)


def _help(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_console_script_is_the_command_line(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (value,) = [project["scripts"][shell.PROGRAM]]
    assert EntryPoint(shell.PROGRAM, value, "console_scripts").load() is cli.main
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"counterpoise {pipeline_src.__version__}\n"
    assert project["version"] == pipeline_src.__version__


@pytest.mark.parametrize("program", ["counterpoise", "python -m pipeline_src"])
def test_help_has_an_example_of_each_step_in_order(capsys, monkeypatch, program):
    monkeypatch.setattr("sys.argv", [f"/somewhere/{program}" if program == shell.PROGRAM else "__main__.py"])
    examples = _help(capsys).split("in the order of use:\n")[1].splitlines()
    commands = [line.split()[len(program.split())] for line in examples if line.strip().startswith(program)]
    assert commands == list(shell.EXAMPLES)
    before = [i for i, line in enumerate(examples) if "snakemake --cores" in line]
    assert [commands[i] for i in before] == [shell.BEFORE_STUDY]
    for name, (line, _) in shell.EXAMPLES.items():
        assert line.split()[0] == name
        assert f"example: {program} {line}" in _help(capsys, name)


def _completed(script: str, *words: str) -> set[str]:
    """What bash proposes for the last word."""
    line = " ".join(map(repr, words))
    call = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _counterpoise; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{call}"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_names(capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert _completed(script, "counterpoise", "est") == {"estimate"}
    assert {"fetch", "check", "plan", "--version"} <= _completed(script, "counterpoise", "")
    assert _completed(script, "counterpoise", "fetch", "cm") == {"cmu_mosi", "cmu_mosei"}
    assert _completed(script, "counterpoise", "explain", "ogm") == {name for name in methods if name.startswith("ogm")}
    assert _completed(script, "counterpoise", "ui", "--po") == {"--port"}
    assert _completed(script, "counterpoise", "completion", "") == {"bash", "zsh", "-h", "--help", "--params"}
    assert _completed(script, "counterpoise", "plan", "--params", "mine") == set()  # files, by `-o default`
    assert cli.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out == shell.FOR_ZSH + script


def test_a_published_dataset_has_values_without_a_params_file():
    needed = {name for name in datasets if issubclass(datasets[name].Params, FolderParams) and datasets[name].homepage}
    assert len(needed) == 11 and needed <= set(shipped.files())


def test_fetch_without_a_network_says_at_once_what_to_put_where(capsys, monkeypatch):
    monkeypatch.setattr(download, "mirrored", lambda url, mirror: "http://127.0.0.1:9/list.csv")  # nobody listens
    assert cli.main(["fetch", "cremad", "--folder", "here"]) == 2
    said = capsys.readouterr()
    assert "values of experiments/" in said.out and "folder here" in said.out
    for item in datasets["cremad"].downloads:
        assert f"missing  {item.file} ({item.bytes:,} bytes) from {item.url}" in said.out
    assert all(line in said.out for line in datasets["cremad"].layout.strip().splitlines())
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Connection refused" in errors[0] and "here/lists/train.csv" in errors[0]


def test_check_opens_a_folder_that_no_params_file_names(tmp_path, capsys):
    published.MADE["ave"](tmp_path / "media")
    assert cli.main(["check", "ave", "--folder", "media"]) == 0
    assert "ready     140 clips, 0 quarantined" in capsys.readouterr().out


def test_names_and_folders_that_cannot_be_are_one_line(capsys):
    assert cli.main(["fetch", "cremat"]) == 2
    assert "but got 'cremat'; did you mean 'cremad'?" in capsys.readouterr().err
    assert cli.main(["check", "av_digits", "--folder", "x"]) == 2
    assert "--folder: expected none for av_digits, which is generated" in capsys.readouterr().err
    assert cli.main(["check", "ave", "--folder", "~nobody-of-this-name/x"]) == 2
    assert "--folder: " in capsys.readouterr().err
    assert cli.main(["fetch", "cremad", "--params", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: expected a readable params file" in capsys.readouterr().err


def test_a_params_file_without_its_option_is_told_the_option(capsys):
    for arguments, hint in ((["plan", "mine.yaml"], "; a params file is named by --params FILE"), (["plan", "x"], "")):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        assert capsys.readouterr().err.endswith(f"error: unrecognized arguments: {arguments[1]}{hint}\n")


@pytest.mark.parametrize("target", [[], ["help"]])
def test_make_alone_lists_what_it_makes_and_starts_nothing(tmp_path, target):
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(["make", *target], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    listed = {line.split()[1] for line in done.stdout.splitlines() if line.strip().startswith("make ")}
    assert {"run", "setup", "test", "ui", "lint", "clean", "help"} <= listed
    assert sorted(tmp_path.rglob("*")) == before
