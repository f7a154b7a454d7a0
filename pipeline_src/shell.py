"""What the command line says of itself: examples in the order of use, and completion for bash and zsh."""

import argparse
import shlex

PROGRAM = "counterpoise"  # the console script of pyproject.toml
EXAMPLES = {  # by command, in the order in which a study needs them
    "new": ("new dataset mine --folder media/mine", "write a study of your own files: a table with paths and labels"),
    "fetch": ("fetch cremad --folder ~/cremad", "download what may be downloaded; print what you must add"),
    "check": ("check cremad --folder ~/cremad", "open every file before a long job"),
    "plan": ("plan --params mine.yaml", "check the params file; list what will be made"),
    "estimate": ("estimate --params mine.yaml", "runs, GPU hours and disk, without the data"),
    "status": ("status --params mine.yaml", "what is done, running, failed and left"),
    "ui": ("ui --params mine.yaml", "browse the runs in MLflow"),
    "overview": ("overview", "one page across studies: methods x datasets, mean ranks"),
    "table": ("table pmr-2023/table-1", "a table of a paper: published values and yours, and what is missing of it"),
    "pack": ("pack --params mine.yaml --licence CC-BY-4.0", "one archive of it, to deposit and cite"),
    "unpack": ("unpack mine.crate.zip --with other.yaml", "check such an archive; compare it with a study"),
    "explain": ("explain ogm_ge", "equation, source and parameters of a method"),
}
STUDY = ("snakemake --cores all --config params=mine.yaml", "the study itself, up to the report; calls the stages")
BEFORE_STUDY = "status"
NAMES = {"fetch": "datasets", "check": "datasets", "explain": "methods"}  # whose names may follow a command

SCRIPT = """\
_{program}() {{
    local words
    case $COMP_CWORD,${{COMP_WORDS[1]}} in
        1,*) words={commands} ;;
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _{program} {program}
"""
FOR_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"


def examples(program: str) -> str:
    """The end of `--help`: a command line per step of a study."""
    lines = [(f"{program} {line}", what) for line, what in EXAMPLES.values()]
    lines.insert([*EXAMPLES].index(BEFORE_STUDY), STUDY)
    width = max(len(line) for line, _ in lines)
    return "in the order of use:\n" + "\n".join(f"  {line:{width}}  {what}" for line, what in lines)


def completion(parser: argparse.ArgumentParser, shell: str, names: dict[str, list[str]]) -> str:
    """Text to `eval` in the shell. It completes commands, their options, choices and `names`; where none of them fits,
    names of files.
    """
    commands = next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    cases = []
    for name, one in commands.items():
        words = [word for action in one._actions for word in (*action.option_strings, *(action.choices or ()))]
        words += names.get(NAMES.get(name, ""), [])
        cases.append(f"        *,{name}) words={shlex.quote(' '.join(words))} ;;")
    script = SCRIPT.format(
        program=PROGRAM, commands=shlex.quote(" ".join([*commands, "--help", "--version"])), cases="\n".join(cases)
    )
    return (FOR_ZSH if shell == "zsh" else "") + script
