#!/usr/bin/env bash
# Fetches a published data set and makes it ready for training:
#
#   bash data/download_and_preprocess_dataset.sh bair
#   bash data/download_and_preprocess_dataset.sh kth [SIZE]
#
# bair  BAIR robot pushing, 30 GB; read as it is. Validation is the file
#       traj_256_to_511.tfrecords, taken out of train, as in the original SAVP project.
# kth   KTH actions, 1.2 GB of zips, converted to SIZE x SIZE pixels (default 64).
#
# An interrupted download goes on where it stopped when the same command is given again.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "error: $1" >&2
  exit 1
}

fetch() { # URL FILE
  if command -v curl > /dev/null; then
    curl --fail --location --retry 5 --continue-at - --output "$2.part" "$1" || fail "cannot fetch $1"
  elif command -v wget > /dev/null; then
    wget --tries=5 --continue --output-document="$2.part" "$1" || fail "cannot fetch $1"
  else
    fail "expected curl or wget to fetch $1, found neither"
  fi
  mv "$2.part" "$2"
}

python_of_project() {
  if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo python; fi
}

bair() {
  local folder=data/bair name=bair_robot_pushing_dataset_v0.tar
  mkdir -p "$folder"
  if [ ! -d "$folder/softmotion30_44k/test" ] && [ ! -d "$folder/test" ]; then
    [ -f "$folder/$name" ] || fetch "http://rail.eecs.berkeley.edu/datasets/$name" "$folder/$name"
    rm -rf "$folder/.extracting"
    mkdir "$folder/.extracting"
    tar -xf "$folder/$name" -C "$folder/.extracting" || fail "$folder/$name is damaged; delete it and start again"
    mv "$folder/.extracting/"* "$folder/"
    rmdir "$folder/.extracting"
  fi
  if [ -d "$folder/softmotion30_44k" ]; then
    mv "$folder/softmotion30_44k/"* "$folder/"
    rmdir "$folder/softmotion30_44k"
  fi
  mkdir -p "$folder/val"
  if [ -f "$folder/train/traj_256_to_511.tfrecords" ]; then
    mv "$folder/train/traj_256_to_511.tfrecords" "$folder/val/"
  fi
  rm -f "$folder/$name"
  "$(python_of_project)" scripts/prepare_data.py --dataset=bair --output_dir="$folder" --verify
}

kth() {
  local downloads=data/kth_downloads action
  mkdir -p "$downloads"
  for action in walking jogging running boxing handwaving handclapping; do
    [ -f "$downloads/$action.zip" ] || fetch "https://www.csc.kth.se/cvap/actions/$action.zip" "$downloads/$action.zip"
  done
  [ -f "$downloads/00sequences.txt" ] ||
    fetch "https://www.csc.kth.se/cvap/actions/00sequences.txt" "$downloads/00sequences.txt"
  "$(python_of_project)" scripts/prepare_data.py --dataset=kth --source_dir="$downloads" --output_dir=data/kth \
    --size="${1:-64}"
}

case "${1:-}" in
  bair) bair ;;
  kth) kth "${2:-64}" ;;
  *) fail "expected bair or kth, as in: bash data/download_and_preprocess_dataset.sh bair. Received: '${1:-}'" ;;
esac
