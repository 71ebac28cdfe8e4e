"""Triton's batching strategy, compiled and called as the server calls it: requests of so many tokens, by hand."""

import json
import shutil
import subprocess

import pytest

from bert.serve.repository import STRATEGY, compile_strategy

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

# What the server provides, for requests that are numbers of tokens; a request of 0 tokens has no ids.
SERVER = """
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
void *TRITONBACKEND_RequestInput(uint64_t *request, const char *name, uint64_t **input) {
  *input = request;
  return *request == 0 || strcmp(name, "input__0") != 0 ? (void *)"no such input" : NULL;
}
void *TRITONBACKEND_InputProperties(uint64_t *input, const char **name, int *type, const int64_t **shape,
                                    uint32_t *dims, uint64_t *bytes, uint32_t *buffers) {
  if (name || type || shape || dims || buffers) abort();
  *bytes = *input * 4;
  return NULL;
}
void *TRITONBACKEND_ModelBatcherInitialize(void **, void *);
void *TRITONBACKEND_ModelBatcherFinalize(void *);
void *TRITONBACKEND_ModelBatchInitialize(const void *, void **);
void *TRITONBACKEND_ModelBatchIncludeRequest(uint64_t *, void *, bool *);
void *TRITONBACKEND_ModelBatchFinalize(void *);
int main(int count, char **words) {
  void *batcher = (void *)1, *batch;
  uint64_t used = 0;
  if (TRITONBACKEND_ModelBatcherInitialize(&batcher, NULL)) return 1;
  if (TRITONBACKEND_ModelBatchInitialize(batcher, &batch)) return 1;
  printf("[[");
  for (int k = 1; k < count; k++) {
    uint64_t tokens = strtoull(words[k], NULL, 10);
    bool include = false;
    const char *error = TRITONBACKEND_ModelBatchIncludeRequest(&tokens, batch, &include);
    if (error) { printf("%s\\"%s\\"", used++ ? "," : "", error); continue; }
    if (!include) {  // as the server does: this batch is closed, and the request begins the next
      if (TRITONBACKEND_ModelBatchFinalize(batch) || TRITONBACKEND_ModelBatchInitialize(batcher, &batch)) return 1;
      printf("],["), used = 0, k--;
      continue;
    }
    printf("%s%llu", used++ ? "," : "", (unsigned long long)tokens);
  }
  puts("]]");
  return TRITONBACKEND_ModelBatchFinalize(batch) || TRITONBACKEND_ModelBatcherFinalize(batcher);
}
"""


@pytest.fixture(scope="module")
def batches_of(tmp_path_factory):
    """Return a function (lengths) -> batches, of a budget of 30 tokens."""
    folder = tmp_path_factory.mktemp("strategy")
    (folder / "server.c").write_text(SERVER)
    library = folder / "batchstrategy.so"
    assert compile_strategy(library, 30)
    command = ["cc", "-o", folder / "server", folder / "server.c", library, f"-Wl,-rpath,{folder}"]
    subprocess.run(command, check=True, capture_output=True)

    def batches(*lengths):
        done = subprocess.run([folder / "server", *map(str, lengths)], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    return batches


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([21, 9], [[21, 9]]),  # exactly full
        ([21, 10], [[21], [10]]),
        ([50], [[50]]),  # alone, however long
        ([50, 1], [[50], [1]]),
        ([1, 50, 1], [[1], [50], [1]]),
        ([10, 10, 10, 10, 20, 5], [[10, 10, 10], [10, 20], [5]]),
        ([1] * 31, [[1] * 30, [1]]),
        ([31], [[31]]),
    ],
)
def test_batches(batches_of, lengths, expected):
    assert batches_of(*lengths) == expected


def test_an_error_of_the_server_is_passed_on(batches_of):
    assert batches_of(10, 0, 20) == [[10, "no such input", 20]]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_it_compiles_without_warnings(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    flags = ["-shared", "-fPIC", "-O2", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DBUDGET=30"]
    done = subprocess.run([compiler, *flags, "-o", tmp_path / "b.so", STRATEGY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_strategy(tmp_path / "b.so", 30) is False


def test_a_compiler_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert compile_strategy(tmp_path / "b.so", 30) is False
    assert not (tmp_path / "b.so").exists()
