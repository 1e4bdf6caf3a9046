#!/usr/bin/env bash
# s3s-fs.sh DATADIR
# Starts s3s-fs (crates.io; an S3 front on a directory, with no index) on loopback and prints ENDPOINT=... lines.
# Idempotent: one that runs is left as it is. Installs the binary if missing (about 3 minutes of two cores).
# Environment: S3SFS_ROOT (default $HOME/.local/s3s-fs), S3SFS_VERSION (0.14.1), PORT (8014), BUCKET (bench), S3SFS_LOG (a
#   RUST_LOG filter).
set -euo pipefail
data=${1:?usage: s3s-fs.sh DATADIR}; mkdir -p "$data"; data=$(cd "$data" && pwd)
root=${S3SFS_ROOT:-$HOME/.local/s3s-fs}; version=${S3SFS_VERSION:-0.14.1}; port=${PORT:-8014}; bucket=${BUCKET:-bench}
bin=$root/bin/s3s-fs; key=benchkey; secret=benchsecretbenchsecret

[ -x "$bin" ] || cargo install s3s-fs --version "$version" --locked --features binary --root "$root" >&2

mkdir -p "$data/root/$bucket"
if ! { [ -s "$data/pid" ] && kill -0 "$(cat "$data/pid")" 2>/dev/null; }; then
  RUST_LOG=${S3SFS_LOG:-error} setsid nohup "$bin" --host 127.0.0.1 --port "$port" --access-key "$key" \
    --secret-key "$secret" "$data/root" >>"$data/log" 2>&1 </dev/null &
  echo $! > "$data/pid"
fi
for _ in $(seq 100); do
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  kill -0 "$(cat "$data/pid")" 2>/dev/null || { tail -5 "$data/log" >&2; exit 1; }
  sleep 0.1
done
printf '%s\n' "ENDPOINT=http://127.0.0.1:$port" "ACCESS_KEY=$key" "SECRET_KEY=$secret" REGION=us-east-1 "BUCKET=$bucket"
