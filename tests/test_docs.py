"""Every command, flag, link, file name and number on the pages is checked.

Commands of ``SHORTENED`` really run, in the order of the pages, on small data under the pages' names; of the others
:mod:`docs_rules` checks what can be checked without.
"""

import ast
import contextlib
import inspect
import io
import re

import docs_sandbox
import pytest
import test_layers
import torch
import yaml
from docs_pages import (
    DOCS,
    LINK,
    PAGES,
    ROOT,
    Command,
    anchors,
    blocks,
    codes,
    commands,
    is_command,
    name_of,
    prose,
    rows,
    section_of,
    split_words,
)
from docs_rules import check, parse_flags, script_of, serving_flags
from torch import nn
from torch.distributed import run as torchrun

from bert.data.formats import hdf5
from bert.glue import tasks
from bert.glue.examples import read_examples
from bert.model.adapters import kinds
from bert.model.adapters.config import AdapterConfig
from bert.model.bert import BertModel
from bert.optim import build

COMMANDS = [command for page in PAGES for command in commands(page)]
FIRST = "python data/make_gazetteer.py --output data/encyclopedia --tasks"  # the other small data are made from its

# Script → flags put after the page's, where a later flag replaces an earlier one.
TINY = "--device cpu --disable_progress_bar --tensorboard_dir none --log_freq 100"
SHORTENED = {
    "data/make_gazetteer.py": "--articles 300 --train_rows 40 --held_out_rows 10 --questions 1",
    "data/train_vocab.py": f"--vocab_size {docs_sandbox.PIECES} --disable_progress_bar",
    "data/preprocess.py": "--local_n_workers 1 --duplicate_factor 2 --disable_progress_bar",
    "data/balance.py": "--num_shards 2 --num_workers 1 --disable_progress_bar",
    "data/verify.py": "--num_workers 1 --disable_progress_bar",
    "data/split_text.py": "",
    "create_pretraining_data.py": "--dupe_factor 1 --disable_progress_bar",
    "run_pretraining.py": f"{TINY} --config_file tiny.json --max_steps 2 --train_batch_size 8 --num_workers 0 "
    "--gradient_accumulation_steps 2 --compile off --bf16=false",
    "run_squad.py": f"{TINY} --max_steps 1 --train_batch_size 4 --memory_gb 1",
    "run_glue.py": f"{TINY} --max_steps 1 --train_batch_size 4 --n_seeds 2",
    "run_classifier.py": f"{TINY} --max_steps 1 --train_batch_size 4",
    "inference.py": "--device cpu",
    "extract_features.py": "--device cpu",
    "convert_checkpoint.py": "",
    "convert_tf_checkpoint_to_pytorch.py": "",
    "compare_models.py": "",
    "bert.report": "",
}
NEEDS_OTHERS = {"--scheduler-file", "--schedule"}  # other processes

# Flags that stand alone in backticks: of programs without a parser here, and made-up ones.
FOREIGN = {"flag", "noflag", "a_b", "container_image", "model_config_name"}


def runs_here(command: Command) -> bool:
    words = split_words(command.text)[1]
    return words[0] == "python" and script_of(words)[0] in SHORTENED and not {*NEEDS_OTHERS, "..."} & set(words)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The sandbox after everything in it has run: (folder, text of a command → its result)."""
    folder = tmp_path_factory.mktemp("site")
    docs_sandbox.build(folder)
    pages, steps = {}, []  # text → where it stands first
    for command in COMMANDS:
        if runs_here(command):
            pages.setdefault(command.text, command.page)
    texts = sorted(pages, key=lambda text: text != FIRST)
    for text in texts:
        if pages[text] == "docs/finetuning.md" and ["publish"] not in steps:
            steps.append(["publish"])
        script, arguments = script_of(split_words(text)[1])
        steps.append([script, *arguments, *SHORTENED[script].split()])
        if text == FIRST:
            steps.append(["arrange"])
    return folder, dict(zip(texts, docs_sandbox.run(folder, steps), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command(command, site):
    folder, results = site
    if command.text in results:
        assert results[command.text]["code"] == 0, results[command.text]["output"]
    else:
        check(command.text, folder)


# ---- the pages


def test_every_block_says_what_it_is():
    for page in PAGES:
        for line, language, text in blocks(page):
            where = f"{name_of(page)}:{line}"
            assert language in ("bash", "text", "python", "yaml"), where
            if language == "text":
                hidden = [each for each in text.splitlines() if is_command(each) and each[0] != " "]
                assert not hidden, f"{where}: commands are ```bash"
            if language == "python":
                ast.parse(text)
            if language == "yaml":
                yaml.safe_load(text)


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_every_page_opens_with_a_command(page):
    assert re.match(r"# [^\n]+\n\n```bash\n", page.read_text(encoding="utf8"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_exist(page):
    ours = {path.name for path in ROOT.iterdir() if path.name != "data"}
    for line, text in codes(page):
        for name in re.findall(r"(?<![\w/.-])[\w.][\w./-]*", text):
            if "/" in name and (name.split("/")[0] in ours - {"results"} or re.match(r"data/[\w]+\.", name)):
                assert (ROOT / name).exists(), f"{name_of(page)}:{line}: {name}"
            elif re.fullmatch(r"\w+\.(py|sh|yml|sub)", name):
                places = (ROOT.glob(name), (ROOT / "scripts").glob(name), (ROOT / "bert").rglob(name))
                places += ((ROOT / "triton").glob(name), (ROOT / "benchmarks").glob(name))
                assert any(map(any, places)), f"{name_of(page)}:{line}: {name}"


def all_flags() -> set[str]:
    """Return the names of the flags of all commands, torchrun's and the shell scripts' among them."""
    found = set()
    scripts = [*ROOT.glob("*.py"), *(ROOT / "data").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    for path in [*scripts, ROOT / "scripts" / "launch.py"]:
        if "run_command(" in path.read_text():
            shown = io.StringIO()
            with contextlib.redirect_stdout(shown):
                parse_flags(path.relative_to(ROOT).as_posix(), ["--help"])
            found |= set(re.findall(r"^  --[^\n]*", shown.getvalue(), re.MULTILINE))
    names = {name for line in found for name in re.findall(r"--([a-z]\w*)", line)}
    texts = [path.read_text() for folder in ("scripts", "data", "triton") for path in ROOT.glob(f"{folder}/**/*.sh")]
    texts.append(torchrun.get_args_parser().format_help())
    return (
        names
        | serving_flags()
        | {name.replace("-", "_") for text in texts for name in re.findall(r"--([a-z][\w-]*)", text)}
    )


def test_flags_that_stand_alone_exist():
    known = all_flags() | FOREIGN
    for page in PAGES:
        for line, text in codes(page):
            for name in re.findall(r"(?:^| )--([a-z][\w-]*)", "" if is_command(text) else text):
                assert name.replace("-", "_") in known, f"{name_of(page)}:{line}: --{name}"


def test_numbers_of_the_readme_are_those_of_the_results():
    for what, values in rows(ROOT / "README.md", "results"):
        (link,) = LINK.findall(what)
        section = section_of(ROOT / "docs" / "results.md", link.partition("#")[2])
        for number in re.findall(r"\d[\d,.]*", values):
            assert number in section, f"{what}: {number}"


def test_the_layers_are_those_of_the_layer_test():
    found = [set() for _ in test_layers.LAYERS]
    for number, module, _ in rows(ROOT / "docs" / "architecture.md", "layers"):
        found[int(number)].add(module.strip("`"))
    assert found == [layer - {"__version__"} for layer in test_layers.LAYERS]


def test_the_code_to_read_is_short():
    text = section_of(ROOT / "README.md", "read-the-code-in-this-order")
    files = re.findall(r"^\d\. .*\]\((.+)\)", text, re.MULTILINE)
    assert len(files) == 6
    assert sum(len((ROOT / file).read_text().splitlines()) for file in files) < 1500


def test_what_is_to_be_added_works(tmp_path, tiny_config, monkeypatch):
    """The examples of CONTRIBUTING.md: a task, an adapter, the functions of a shard format, and an optimizer."""
    task, adapter, functions, optimizer = (
        text for _, kind, text in blocks(ROOT / "CONTRIBUTING.md") if kind == "python"
    )
    row = eval(task, vars(tasks))
    (tmp_path / "dev.tsv").write_text("text\tstars\nFine\tgood\n")
    (example,) = read_examples(row, tmp_path, "dev")
    assert (example.text_a, example.label) == ("Fine", "good")

    names = dict(vars(kinds))
    exec(adapter, names)
    monkeypatch.setitem(kinds.ADAPTERS, "shift", names["Shift"])
    shifted = BertModel(tiny_config, adapters=[AdapterConfig("shift")]).eval().requires_grad_(False)
    shifted.adapters[0].shift[-1] = 2.0
    plain = BertModel(tiny_config).eval().requires_grad_(False)
    plain.load_state_dict({name: each for name, each in shifted.state_dict().items() if "adapters" not in name})
    ids = torch.tensor([[2, 5, 3]])
    assert torch.equal(shifted(ids)[0][-1], plain(ids)[0][-1] + 2.0)

    stated = {node.name: len(node.args.args) for node in ast.parse(functions).body}
    assert stated == {name: len(inspect.signature(getattr(hdf5, name)).parameters) for name in stated}
    assert set(stated) == {"inspect", "read", "write", "splice"}

    names = dict(vars(build))
    exec(optimizer, names)
    model = nn.ModuleDict({"LayerNorm": nn.LayerNorm(2), "dense": nn.Linear(2, 2)})
    groups = build.parameter_groups(model.named_parameters(), weight_decay=0.01)
    made = names["_build_sgd"](groups, build.OptimizerConfig())
    assert [group["momentum"] for group in made.param_groups] == [0.9, 0.9]
