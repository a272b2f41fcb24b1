#!/usr/bin/env bash
# run.sh PREFIX: builds the examples as C and as C++17 against the library that is installed in
# PREFIX, and runs them; the one that shares a buffer under valgrind, too. Fails if one exits with
# anything but 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
prefix=$1
out=$prefix/examples
mkdir -p "$out"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
read -ra flags < <(pkg-config --cflags --libs gpu-interop-c vulkan egl gl)
warnings=(-Wall -Wextra -Werror -O1 -g)

for name in share_buffer share_image ring two_processes; do
    cc "${warnings[@]}" contexts.c "$name.c" -o "$out/$name-c" "${flags[@]}"
    c++ -std=c++17 "${warnings[@]}" -x c++ contexts.c "$name.c" -x none -o "$out/$name-cpp" "${flags[@]}"
    for program in "$name-c" "$name-cpp"; do
        printf -- '--> %s\n' "$program"
        timeout 120 "$out/$program"
    done
done

printf -- '--> share_buffer under valgrind\n'
timeout 300 valgrind --quiet --error-exitcode=1 --leak-check=full --suppressions=valgrind.supp \
    --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible \
    "$out/share_buffer-c"
