#!/usr/bin/env bash
# Tests, benchmark and published cells on a node with a GPU and without network.
#
#   bash run.sh [OUT] [--minutes 9] [--device cuda|cpu] [OVERRIDE...]
#
# OUT (default: gpu-out) gets log.txt, tests.txt, benchmark.json, records.zip and summary.md. A part
# that fails does not stop the next one, and all end within the minutes. Overrides, e.g.
# data.limit=1000 recipe.epochs=2, are for the cells. The variables CELLS (separated by spaces), SEEDS
# and MODELS (of the benchmark) replace the defaults below. Without cells (CELLS=) the benchmark gets their
# time; MODELS= leaves it out. RUNS is a folder that keeps checkpoints for another call (default: a
# temporary one).
set -uo pipefail
fail() { echo "run.sh: $*" >&2; exit 2; }

CELLS=${CELLS-mnist/vgg5_fc mnist/vgg5_spinal mnist/fashion_mnist_vgg5_fc mnist/fashion_mnist_vgg5_spinal}
SEEDS=${SEEDS:-0-9}
out='' minutes=9 device=cuda overrides=()
while (($#)); do
    case $1 in
        --minutes) minutes=${2-} && shift && shift ;;
        --device) device=${2-} && shift && shift ;;
        -*) fail "unknown option $1; see the first lines of $0" ;;
        *=*) overrides+=("$1") && shift ;;
        *) [[ -z $out ]] || fail "two folders for the results: $out and $1" && out=$1 && shift ;;
    esac
done
[[ $minutes =~ ^[0-9]+([.][0-9]+)?$ ]] || fail "--minutes must be a number, not '$minutes'"
[[ $device == cuda || $device == cpu ]] || fail "--device must be cuda or cpu, not '$device'"
# on a CPU one step of a larger network would take the time of them all
[[ -n ${MODELS+set} || $device == cpu ]] || MODELS='cnn vgg5 airbench cifar_cnn resnet18_thin vgg16_bn'
limit=$(awk -v m="$minutes" 'BEGIN { print int(60 * m) }')
out=${out:-gpu-out}
mkdir -p "$out" || fail "$out cannot be made"
out=$(cd "$out" && pwd)
[[ ! -e $out/log.txt ]] || fail "$out has the results of an earlier call; name another folder"
pack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
runs=$(realpath -m "${RUNS:-$work/runs}")
exec > >(tee "$out/log.txt") 2>&1
log=$! running='' failed=''
trap 'rm -rf "$work"; exec > /dev/null 2>&1; wait "$log"' EXIT
trap '[[ -z $running ]] || { kill "$running"; wait "$running"; }; exit 143' INT TERM

left() { echo $((limit - SECONDS)); }
as_minutes() { awk -v s="$1" 'BEGIN { printf "%.2f", s / 60 }'; }
# part NAME SECONDS COMMAND...: with a time limit; output also goes to OUT/NAME.txt if that exists;
# exit codes 5 (no tests) and 75 (runs are left for another call) count as success
part() {
    local name=$1 seconds=$2 code began=$SECONDS copy=/dev/null
    shift 2
    ((seconds > 0)) || { echo "== $name: skipped, the time is up"; return; }
    [[ ! -e $out/$name.txt ]] || copy=$out/$name.txt
    echo "== $name: at most $seconds s"
    timeout --signal="${signal:-TERM}" --kill-after=5 "$seconds" "$@" > >(tee -a "$copy") 2>&1 &
    running=$!
    wait "$running"
    code=$? running=''
    echo "== $name: exit code $code after $((SECONDS - began)) s"
    [[ $code == 0 || $code == 5 || $code == 75 ]] || failed+=" $name"
}

export PYTHONPATH=$work/lib PYTHONUNBUFFERED=1 SPINAL_OFFLINE=1 SPINAL_DATA=$work/data
SPINAL_COMMIT=$(< "$pack/COMMIT") && export SPINAL_COMMIT
echo "commit $SPINAL_COMMIT, $minutes minutes on $device, $(date -u +%FT%TZ)"
cp -r "$pack/data" "$work/data"
part install 120 python3 -m pip install --quiet --no-index --no-deps --no-warn-script-location \
    --target "$work/lib" "$pack"/wheels/*.whl
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
python3 - "$device" << 'END' || fail "no GPU or a missing package; --device cpu rehearses without a GPU"
import platform, sys, torch, torchvision, spinal_repro, hydra
print("Python", platform.python_version(), "PyTorch", torch.__version__, torchvision.__version__)
sys.exit(sys.argv[1] == "cuda" and not torch.cuda.is_available() and "PyTorch finds no GPU")
END
[[ $device == cuda ]] || export CUDA_VISIBLE_DEVICES=

cd "$pack/source" && touch "$out/tests.txt"
export PYTHONDONTWRITEBYTECODE=1
signal=INT part tests $((limit / 8)) python3 -m pytest -v -n 0 -p no:cacheprovider \
    -m cuda tests/cuda
read -ra cells <<< "$CELLS"
read -ra models <<< "${MODELS-cnn}"
total=$((limit / 4 < 600 ? limit / 4 : 600))
((${#cells[@]})) || total=$(($(left) - 10))
# measure NAME SECONDS PART...
measure() {
    part "$1" "$2" python3 scripts/benchmark.py --parts "${@:3}" --device "$device" --models "${models[@]}" \
        --minutes "$(as_minutes $(($2 * 5 / 6)))" --out "$out/benchmark.json"
}
half=$((total / 2 >= 120 ? total / 2 : 0)) # starting the processes of the seeds takes a minute
if ((${#models[@]})); then
    measure benchmark $((total - half)) loops profiles
    ((half == 0)) || measure seeds "$half" seeds
fi
mkdir -p "$runs" && cd "$runs/.." || exit
seconds=$((${#cells[@]} ? $(left) - 15 : 0))
part evidence $((seconds > 0 ? seconds + 10 : 0)) python3 "$work/lib/bin/spinal" paper run \
    "${cells[@]}" "runtime.device=$device" "${overrides[@]}" --seeds "$SEEDS" \
    --minutes "$(as_minutes "$seconds")" --runs "${runs##*/}" --out "$out/records.zip"
[[ -e $out/records.zip ]] &&
    python3 -m zipfile -e "$out/records.zip" "$work/made" && cp "$work/made/summary.md" "$out"
[[ ! -e $out/summary.md ]] || grep -q ' 0 failed' "$out/summary.md" || failed+=' runs'

ls -l "$out"
echo "${SECONDS} s of $limit s; failed:${failed:- nothing}"
[[ -z $failed ]]
