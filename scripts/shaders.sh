#!/usr/bin/env bash
# Compiles the shaders in shaders/: each .comp, .vert and .frag to SPIR-V (.comp.spv and so on), each .cu to PTX (.ptx),
# beside the source.
#
#   scripts/shaders.sh               compile everything and write what changed
#   scripts/shaders.sh --check       write nothing; fail if a committed .spv or .ptx is not what its source compiles to.
#                                    Without the PTX compiler, check only that each .ptx names the hash of its source
#   scripts/shaders.sh --check=all   the same, and fetch the PTX compiler if it is not installed
#
# The outputs are compared byte for byte and depend on the compiler's version, so both compilers are pinned:
#   SPIR-V  glslangValidator 12.0.0 (package glslang-tools of Debian 12), for Vulkan 1.1
#   PTX     NVRTC 12.0.140 for compute_75, from the PyPI wheel nvidia-cuda-nvrtc-cu12, kept in target/. CUDA 12.0 is the
#           oldest CUDA that the library supports, and its PTX loads in driver 525 and later; a newer compiler's PTX
#           needs a newer driver. No CUDA toolkit and no GPU are needed. NVRTC_LIBRARY=/path/to/libnvrtc.so.12 uses
#           another copy.
# Needs glslang-tools and spirv-tools; for the PTX python3, and pip the first time. Neither compiler's output depends on
# the clock, the folder or the machine.
set -euo pipefail

GLSLANG_VERSION=12.0.0
NVRTC_VERSION=12.0.140
NVRTC_SHA256=8e94e991d85c422de4da87bdc7472fdc1364367bd4aace7000b559cd33122071

cd "$(dirname "${BASH_SOURCE[0]}")/.."
nvrtc_home=target/nvrtc-$NVRTC_VERSION
nvrtc_library=${NVRTC_LIBRARY:-$nvrtc_home/nvidia/cuda_nvrtc/lib/libnvrtc.so.12}

die() {
    printf 'shaders.sh: %s\n' "$*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is not installed (Debian, Ubuntu: apt-get install $2)"
}

check_glslang() {
    need glslangValidator glslang-tools
    need spirv-val spirv-tools
    local found
    found=$(glslangValidator --version | sed -n 's/^Glslang Version: [0-9]*://p')
    [[ $found == "$GLSLANG_VERSION" ]] || die "glslangValidator is $found here; the committed SPIR-V is made with" \
        "$GLSLANG_VERSION (Debian 12's glslang-tools), and another version writes other bytes"
}

# compile_spirv SOURCE OUTPUT
compile_spirv() {
    local log
    # OpenGL receives the same source as text, so it must compile for OpenGL, too.
    log=$(glslangValidator "$1" 2>&1) || die "$1 does not compile for OpenGL:"$'\n'"$log"
    log=$(glslangValidator --target-env vulkan1.1 -o "$2" "$1" 2>&1) || die "$1 does not compile for Vulkan:"$'\n'"$log"
    spirv-val --target-env vulkan1.1 "$2" || die "the SPIR-V of $1 is not valid"
}

fetch_nvrtc() {
    [[ -e $nvrtc_library ]] && return
    [[ -z ${NVRTC_LIBRARY:-} ]] || die "NVRTC_LIBRARY=$NVRTC_LIBRARY does not exist"
    [[ $(uname -sm) == "Linux x86_64" ]] || die "the pinned NVRTC is for Linux on x86_64"
    need python3 python3
    python3 -m pip --version >/dev/null 2>&1 || die "pip is not installed (Debian, Ubuntu: apt-get install python3-pip)," \
        "or set NVRTC_LIBRARY to the libnvrtc.so.12 of CUDA 12.0"
    local wheel=nvidia_cuda_nvrtc_cu12-$NVRTC_VERSION-py3-none-manylinux1_x86_64.whl
    printf 'shaders.sh: fetching NVRTC %s from PyPI\n' "$NVRTC_VERSION"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform manylinux1_x86_64 --dest "$scratch" "nvidia-cuda-nvrtc-cu12==$NVRTC_VERSION"
    sha256sum --check --quiet <<<"$NVRTC_SHA256  $scratch/$wheel" || die "the NVRTC wheel is not the pinned one"
    python3 -m zipfile -e "$scratch/$wheel" "$scratch/nvrtc"
    mkdir -p target
    rm -rf "$nvrtc_home"
    mv "$scratch/nvrtc" "$nvrtc_home"
}

# compile_ptx SOURCE OUTPUT
compile_ptx() {
    need python3 python3
    python3 scripts/nvrtc.py "$nvrtc_library" "$1" "$2"
    # The library reports its version only as 12.0; the PTX names the build.
    grep -q "V$NVRTC_VERSION\$" "$2" || die "$nvrtc_library is not NVRTC $NVRTC_VERSION:" \
        "$(grep -m1 'compilation tools' "$2")"
    # By this line a stale .ptx is found without the compiler.
    sed -i "1i $(source_line "$1")" "$2"
}

source_line() {
    local hash
    hash=$(sha256sum <"$1")
    printf '// Source: %s, sha256 %s' "${1##*/}" "${hash%% *}"
}

mode='write'
case $#:${1:-} in
    0:) ;;
    1:--check) mode=check ptx_fetch=no ;;
    1:--check=all) mode=check ;;
    *) die "usage: scripts/shaders.sh [--check | --check=all]" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/out"
shopt -s nullglob

check_glslang
for source in shaders/*.{comp,vert,frag}; do
    compile_spirv "$source" "$scratch/out/${source##*/}.spv"
done
kinds=(shaders/*.spv)

wrong=0
complain() {
    printf 'shaders.sh: %s\n' "$*" >&2
    wrong=1
}
stale="is not what its source compiles to: run scripts/shaders.sh and commit it"

ptx_checked=yes
if [[ ${ptx_fetch:-yes} == no && ! -e $nvrtc_library ]]; then
    ptx_checked=no
    for source in shaders/*.cu; do
        ptx=${source%.cu}.ptx
        grep -sqxF "$(source_line "$source")" "$ptx" || complain "$ptx $stale"
    done
else
    fetch_nvrtc
    for source in shaders/*.cu; do
        name=${source##*/}
        compile_ptx "$source" "$scratch/out/${name%.cu}.ptx"
    done
    kinds+=(shaders/*.ptx)
fi

outputs=("$scratch"/out/*)
for output in "${outputs[@]}"; do
    committed=shaders/${output##*/}
    cmp -s "$output" "$committed" && continue
    if [[ $mode == write ]]; then
        install -m 644 "$output" "$committed"
        printf 'shaders.sh: wrote %s\n' "$committed"
    else
        complain "$committed $stale"
    fi
done
for committed in "${kinds[@]}"; do
    [[ -e $scratch/out/${committed##*/} ]] || complain "$committed has no source: delete it"
done
((wrong == 0)) || exit 1

if [[ $mode == write ]]; then
    printf 'shaders.sh: %d files are up to date\n' "${#outputs[@]}"
elif [[ $ptx_checked == yes ]]; then
    printf 'shaders.sh: all %d compiled files are what their sources compile to\n' "${#outputs[@]}"
else
    printf 'shaders.sh: all %d SPIR-V files are what their sources compile to; the PTX was checked by the hash of its %s\n' \
        "${#outputs[@]}" "source (--check=all fetches NVRTC $NVRTC_VERSION and compiles it)"
fi
