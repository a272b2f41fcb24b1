#!/usr/bin/env bash
# Plants deliberate faults in the library, one at a time, and checks that a test turns red for each of them.
#
#   scripts/faults.sh [NAME...]    all faults of interop-tests/faults, or these; prints a table, exit status 1 if one survives
#   scripts/faults.sh --check      only checks that each fault still applies to the sources
#
# A fault is a patch. Above the diff, `Fault:` describes it and `Tests:` selects the tests that must catch it:
# `unit FILTER` of the library or `suite FILTER` of the conformance suite. They have to pass without the fault.
#
# The faults are planted in the last commit, in a copy in target/faults. Each takes some 20 seconds on two cores.
# interop-tests/FAULTS.md contains the table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly root=$PWD
readonly limit=120 # seconds, far longer than the tests of any fault take
readonly folder=$root/target/faults
commit=$(git rev-parse HEAD)
readonly tree=$folder/tree log=$folder/log

# git with the copy as its work tree and an index of its own. It writes only the files that differ, so cargo rebuilds little.
copy() {
    GIT_DIR=$(git rev-parse --absolute-git-dir) GIT_WORK_TREE=$tree GIT_INDEX_FILE=$folder/index git -C "$tree" "$@"
}

# Makes the copy equal to the last commit.
restore() {
    mkdir -p "$tree"
    copy read-tree --reset -u "$commit"
}

# A line of the header.
header() {
    sed -n "s/^$1: //p; /^---/q" "$root/interop-tests/faults/$2.patch"
}

# The tests that `unit FILTER` or `suite FILTER` selects. Standard output and error go to the log.
run_tests() {
    local kind=$1 filter=$2 selected
    case $kind in
        unit) selected=(-p gpu-interop --all-features --lib) ;;
        suite) selected=(-p interop-tests --test conformance) ;;
        *) printf '%s: neither unit nor suite\n' "$kind" >&2 && exit 2 ;;
    esac
    cd "$tree"
    export CARGO_TARGET_DIR=$folder/target
    cargo test --quiet --locked "${selected[@]}" --no-run >"$log" 2>&1 || return 100
    timeout -k 10 "$limit" cargo test --locked "${selected[@]}" -- "$filter" >"$log" 2>&1
}

# The first test of the log that failed, in alphabetical order, and how many others did.
first_red() {
    local red
    red=$(sed -nE 's/^test (.*) \.\.\. FAILED.*/\1/p' "$log" | sort -u)
    if [[ -z $red ]]; then
        printf 'the run as a whole: %s' "$(grep -vE '^(|warning: .*)$' "$log" | tail -n 1 | cut -c 1-120)"
        return
    fi
    # shellcheck disable=SC2016 # Markdown, no command substitution.
    printf '`%s`' "${red%%$'\n'*}"
    local others=$(($(wc -l <<<"$red") - 1))
    if ((others > 0)); then
        printf ' and %d more' "$others"
    fi
}

# The test that did not end.
hanging() {
    local name
    name=$(sed -nE 's/^test (.*) has been running for over .*/\1/p' "$log" | head -n 1)
    # shellcheck disable=SC2016
    printf '`%s` does not end' "${name:-the run}"
}

names=()
check_only=no
if [[ ${1:-} == --check ]]; then
    check_only=yes
elif (($# > 0)); then
    names=("$@")
fi
if ((${#names[@]} == 0)); then
    for patch in interop-tests/faults/*.patch; do
        names+=("$(basename "$patch" .patch)")
    done
fi

mkdir -p "$folder"
restore
failed=0
for name in "${names[@]}"; do
    copy apply --check -C1 "$root/interop-tests/faults/$name.patch" ||
        { printf '%s does not apply\n' "$name" >&2 && failed=1; }
done
if [[ $check_only == yes ]]; then
    ((failed)) || printf 'faults that apply: %d\n' "${#names[@]}"
    exit "$failed"
fi
((failed == 0)) || exit 1

# Without a fault, everything passes.
while read -r kind filter; do
    printf 'without a fault: %s %s\n' "$kind" "$filter" >&2
    (run_tests "$kind" "$filter") || { cat "$log" >&2 && exit 1; }
done < <(for name in "${names[@]}"; do header Tests "$name"; done | sort -u)

printf '| fault | what is wrong | tests | first test that fails |\n|---|---|---|---|\n'
for name in "${names[@]}"; do
    copy apply -C1 "$root/interop-tests/faults/$name.patch"
    read -r kind filter <<<"$(header Tests "$name")"
    status=0
    (run_tests "$kind" "$filter") || status=$?
    case $status in
        0) result="**survives**" && failed=1 ;;
        100) result="**does not build**" && failed=1 ;;
        124 | 137) result=$(hanging) ;;
        *) result=$(first_red) ;;
    esac
    printf "| %s | %s | \`%s %s\` | %s |\n" "$name" "$(header Fault "$name")" "$kind" "$filter" "$result"
    restore
done
exit "$failed"
