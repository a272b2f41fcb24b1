#!/usr/bin/env bash
# run.sh PREFIX: builds the examples and the tests as C and as C++17, with the library
# that is installed in PREFIX, and runs them; then those of CMake, and some under valgrind. Fails if
# one exits with anything but 0, or 2 for those that need a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
prefix=$1
out=$prefix/examples
mkdir -p "$out"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
libraries=(gpu-interop-c vulkan egl gl)
read -ra flags < <(pkg-config --cflags --libs "${libraries[@]}")
warnings=(-Wall -Wextra -Werror -O1 -g -pthread)

run() {
    local status=0
    printf -- '--> %s\n' "$*"
    timeout 300 "$@" || status=$?
    case $status:$1 in
        0:* | 2:*/semaphores* | 2:*/cuda*) ;;
        *) printf 'exit status %d\n' "$status" && return 1 ;;
    esac
}

for source in first_buffer.c share_buffer.c share_image.c own_buffer.c ring.c two_processes.c semaphores.c cuda.c \
    ../tests/failures.c ../tests/events.c; do
    name=$(basename "$source" .c)
    cc "${warnings[@]}" contexts.c "$source" -o "$out/$name" "${flags[@]}"
    c++ -std=c++17 "${warnings[@]}" -x c++ contexts.c "$source" -x none -o "$out/$name-cpp" "${flags[@]}"
    run "$out/$name"
    run "$out/$name-cpp"
done
c++ -std=c++17 "${warnings[@]}" raii.cpp -x c++ contexts.c -x none -o "$out/raii" "${flags[@]}"
run "$out/raii"

# The static library, with the system's libraries that it needs.
read -ra private < <(pkg-config --static --libs-only-l gpu-interop-c | sed 's/-lgpu_interop_c//')
cc "${warnings[@]}" contexts.c share_buffer.c -o "$out/share_buffer-static" -I"$prefix/include" \
    "$prefix/lib/libgpu_interop_c.a" -lvulkan -lEGL -lGL "${private[@]}"
LD_LIBRARY_PATH='' run "$out/share_buffer-static"

cmake -S cmake -B "$out/cmake" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
cmake --build "$out/cmake" >/dev/null
run "$out/cmake/share_buffer"
run "$out/cmake/raii"

for name in share_buffer raii failures events; do
    run valgrind --quiet --error-exitcode=1 --leak-check=full --suppressions=valgrind.supp \
        --show-leak-kinds=definite,indirect,possible --errors-for-leak-kinds=definite,indirect,possible \
        "$out/$name"
done
