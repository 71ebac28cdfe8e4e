#!/usr/bin/env bash
# Install Triton's perf_analyzer into the serving environment. The program is in the wheel of the client of Triton 2.51;
# of the libraries that it asks for, nvidia-pytriton's wheel has those that a system lacks, under other names.
#
#   bash triton/install_perf_analyzer.sh
set -euo pipefail

# shellcheck source=triton/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
CLIENT=tritonclient==2.51.0

install_perf_analyzer() {
  local folder=$VENV/perf_analyzer download libraries name found
  [[ -x $folder/perf_analyzer ]] && return
  libraries=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia_pytriton.libs
  [[ -d $libraries ]] || fail "$VENV has no Triton server: run \`bash triton/setup.sh\` first"
  download=$(mktemp -d)
  "$VENV/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$download" "$CLIENT" ||
    fail "the wheel $CLIENT could not be downloaded"
  mkdir -p "$folder/lib"
  for name in libb64.so.0d libcudart.so.12; do
    found=$(compgen -G "$libraries/${name%%.so*}-*.so*" | head -1) || fail "$libraries has no ${name%%.so*}"
    ln -sf "$found" "$folder/lib/$name"
  done
  "$VENV/bin/python" - "$download" "$folder" <<'PY'
import pathlib, sys, zipfile

wheel, = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    name, = (each for each in archive.namelist() if each.endswith("/bin/perf_analyzer"))
    program = pathlib.Path(sys.argv[2], ".perf_analyzer")
    program.write_bytes(archive.read(name))
program.chmod(0o755)
program.rename(program.with_name("perf_analyzer"))
PY
  rm -r "$download"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  install_perf_analyzer
  LD_LIBRARY_PATH=$VENV/perf_analyzer/lib "$VENV/perf_analyzer/perf_analyzer" --version ||
    fail "perf_analyzer does not start: it needs Linux on x86-64 with OpenSSL 3"
fi
