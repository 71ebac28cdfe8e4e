"""The sizes that keep the code readable: lines of a file and of a function, parameters, shares of the folders."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bert"
KERNELS = ("bert/model/kernels/", "bert/optim/lamb/")  # a kernel takes every pointer and size as a parameter
PUBLISHED = {  # their signatures are those of the published scripts
    ("bert/squad/answers.py", "write_predictions"),
    ("bert/deployment/questions.py", "get_dataloader_fn"),
    ("bert/deployment/questions.py", "__init__"),
}
PATTERNS = ("*.py", "bert/**/*.py", "benchmarks/*.py", "data/**/*.py", "scripts/**/*.py", "triton/*.py")


def sources() -> list[Path]:
    return sorted(file for pattern in PATTERNS for file in ROOT.glob(pattern))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    found = function.args
    named = [each.arg for each in (*found.posonlyargs, *found.args, *found.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")])


def lines(files: list[Path]) -> int:
    return sum(file.read_text(encoding="utf8").count("\n") for file in files)


def test_no_function_is_longer_than_60_lines():
    found = [
        f"{file.relative_to(ROOT)}:{each.lineno} {each.name} {each.end_lineno - each.lineno + 1}"
        for file in sources()
        for each in functions(file)
        if each.end_lineno is not None and each.end_lineno - each.lineno + 1 > 60
    ]
    assert found == []


def test_no_function_takes_more_than_6_parameters():
    found = []
    for file in sources():
        name = file.relative_to(ROOT).as_posix()
        if name.startswith(KERNELS):
            continue
        for each in functions(file):
            if parameters(each) > 6 and (name, each.name) not in PUBLISHED:
                found.append(f"{name}:{each.lineno} {each.name} {parameters(each)}")
    assert found == []


def test_no_file_is_longer_than_300_lines():
    sizes = {file.relative_to(ROOT).as_posix(): lines([file]) for file in sources()}
    assert {name: size for name, size in sizes.items() if size > 300} == {}


def test_no_folder_holds_15_percent_of_the_package():
    total = lines(list(PACKAGE.rglob("*.py")))
    sizes = {folder.name: lines(list(folder.rglob("*.py"))) for folder in PACKAGE.iterdir() if folder.is_dir()}
    assert {name: size for name, size in sizes.items() if size >= 0.15 * total} == {}


def test_the_counting_counts(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("class A:\n    def f(self, a, /, b, c=1, *rest, d, **more):\n        return a\n")
    (function,) = functions(file)
    assert parameters(function) == 4
    assert lines([file]) == 3
