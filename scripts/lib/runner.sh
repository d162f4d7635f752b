# shellcheck shell=bash
# The tests' runner: kept within a time, and counted. Sourced, never run.

# within_budget DEADLINE DIR cargo nextest|test ARG…: runs that until the shell's SECONDS are
# DEADLINE; what it says is shown and kept in DIR for count_tests.
within_budget() {
    local deadline=$1 said=$2/$4 status=0 foreground=(--foreground) color=never left
    shift 2
    left=$((deadline - SECONDS))
    # Interrupted, nextest tells the tests to end, and they clean up. cargo's own runner tells them
    # nothing: then the signal goes to all of them, unless there is a terminal that does that.
    [ "$2" = nextest ] || [ -t 0 ] || foreground=()
    [ ! -t 2 ] || color=always
    CARGO_TERM_COLOR=$color timeout "${foreground[@]}" --signal=INT --kill-after=60 \
        "$((left > 0 ? left : 1))" "$@" 2>&1 | tee -ia -- "$said" >&2 || status=$?
    [ "$status" -eq 0 ] || [ "$SECONDS" -lt "$deadline" ] ||
        warn "the tests were over their time, and what still ran of them was ended (INFINIBAY_TEST_BUDGET)"
    return "$status"
}

# count_tests DIR STATUS: `N passed, N failed`, as the runners said. Where STATUS is not 0 though no
# test is said to have failed, the run itself is one that failed: it did not build, or not end.
count_tests() {
    local file
    for file in "$1"/nextest "$1"/test; do
        [ ! -e "$file" ] || sed 's/\x1b\[[0-9;]*m//g' "$file" | awk -v runner="${file##*/}" '
            function number_before(word) {
                return match($0, "[0-9]+ " word) ? substr($0, RSTART, RLENGTH) + 0 : 0
            }
            # The last one: what a failed test said is shown before it, and may look the same.
            runner == "nextest" && /^ *Summary \[.*\] .* tests? run: / {
                passed = number_before("passed")
                failed = number_before("failed") + number_before("exec failed") + number_before("timed out")
            }
            # One for each binary.
            runner == "test" && /^test result: / {
                passed += number_before("passed")
                failed += number_before("failed")
            }
            END { print passed + 0, failed + 0 }'
    done | awk -v status="$2" '
        { passed += $1; failed += $2 }
        END { printf "%d passed, %d failed\n", passed, (status && !failed) ? 1 : failed }'
}
