#!/usr/bin/env bash
# What the scripts decide, tried without a host: what `down` removes and when it refuses, what is
# missing where there is no apt, how tests are counted. `scripts/test shell` runs it.
set -euo pipefail

# shellcheck source=scripts/lib/say.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/../scripts/lib/say.sh"
scratch=''
make_temp_dir scratch
# The checkout that these scripts are of.
HERE=$REPO
# A checkout of its own, with a space in its path.
REPO="$scratch/check out"
mkdir -p -- "$REPO/.up"
export INFINIBAY_STATE_DIR="$scratch/state dir" INFINIBAY_SOCKET_DIR=$scratch/sockets/agents
# shellcheck source=scripts/lib/host.sh
. "$LIB/host.sh"
# shellcheck source=scripts/lib/images.sh
. "$LIB/images.sh"
# shellcheck source=scripts/lib/daemon.sh
. "$LIB/daemon.sh"
# shellcheck source=scripts/lib/api.sh
. "$LIB/api.sh"
# shellcheck source=scripts/lib/vm.sh
. "$LIB/vm.sh"
# shellcheck source=scripts/lib/runner.sh
. "$LIB/runner.sh"

# same WHAT EXPECTED ACTUAL
same() {
    [ "$2" = "$3" ] || die "$1: expected"$'\n'"$2"$'\n'"and got"$'\n'"$3"
}

left_over() {
    (cd -- "$scratch" && find . -mindepth 1 ! -path './check out*' | LC_ALL=C sort)
}

# up_makes: what a run of `up` leaves behind, the daemon's files included.
up_makes() {
    prepare_places
    note_image "$MADE" "$STATE_DIR/images/pocket"
    note_image "$MADE" "$STATE_DIR/images/debian-12"
    mkdir -p -- "$STATE_DIR"/{base/infiniservice,images/{pocket,debian-12},seeds}
    touch -- "$STATE_DIR"/{infinibay.db,images/.build.lock}
}

what_others_made_stays() {
    mkdir -p -- "$STATE_DIR"/{base,images/pocket}
    up_makes
    unmake_places remove
    same 'the agent and the image of scripts/test stay' \
        "$(printf './state dir%s\n' '' /base /base/infiniservice /images /images/.build.lock /images/pocket)" \
        "$(left_over)"
    rm -rf -- "$STATE_DIR"
}

what_up_made_goes() {
    up_makes
    unmake_places keep
    same 'images are kept' \
        "$(printf './state dir%s\n' '' /images /images/.build.lock /images/debian-12 /images/pocket)" \
        "$(left_over)"
    # The next one knows them still.
    places_of_up
    unmake_places remove
    same 'nothing is left' '' "$(left_over)"
    [ ! -e "$UP_DIR" ] || die "$UP_DIR is left"
}

a_tpm_authoritys_files_are_given_back() {
    local dir=$scratch/authority
    mkdir -p -- "$dir"
    touch -- "$dir/certserial"
    chown nobody -- "$dir"
    (mend_tpm_authority "$dir") 2>/dev/null
    same "a file's owner is its directory's" nobody "$(stat -c %U -- "$dir/certserial")"
    same 'all is as it should be: nothing is said' '' "$(mend_tpm_authority "$dir" 2>&1)"
    mend_tpm_authority "$dir/none"
    rm -rf -- "$dir"
}

down_finds_the_places_of_up() {
    up_makes
    printf 'port = 4321\n' >"$CONFIG"
    same 'the places' "$STATE_DIR 4321" "$(STATE_DIR=/elsewhere API_PORT=1; places_of_up; echo "$STATE_DIR $API_PORT")"
    (STATE_DIR=$scratch/second; prepare_places) 2>/dev/null && die "a second state directory was taken"
    unmake_places remove
}

# The API, as far as listing goes: two pages, then what LAST_PAGE says.
LAST_PAGE='{"vms": {"nodes": [{"id": "b", "name": "two", "phase": "STOPPED"}], "pageInfo": {"hasNextPage": false}}}'
graphql() {
    if jq -e 'has("after")' <<<"$2" >/dev/null; then
        printf '%s\n' "$LAST_PAGE"
    else
        printf '%s\n' '{"vms": {"nodes": [{"id": "a", "name": "one", "phase": "RUNNING"}],
            "pageInfo": {"hasNextPage": true, "endCursor": "a"}}}'
    fi >"$API_ANSWER"
}

other_vms_are_refused() {
    local said
    mkdir -p -- "$UP_DIR"
    API_ANSWER=$scratch/answer
    same 'all pages are seen' $'a one RUNNING\nb two STOPPED' "$(list_vms)"
    printf 'a\n' >"$VM_FILE"
    said=$(refuse_other_vms 2>&1) && die "there are others, and it went on"
    grep -q ' *two .*STOPPED' <<<"$said" || die "the other VM is not named: $said"
    grep -q ' one ' <<<"$said" && die "our own VM is named: $said"
    LAST_PAGE='{"vms": {"nodes": [], "pageInfo": {"hasNextPage": false}}}'
    (refuse_other_vms) || die "there is only ours, and it refused"
    LAST_PAGE='{"vms": {"nodes": []}}'
    (refuse_other_vms) 2>/dev/null && die "a list without an end was taken for whole"
    rm -rf -- "$UP_DIR" "$API_ANSWER"
}

equivalents_are_looked_for() {
    local package said
    for package in "${HOST_PACKAGES[@]}" "${IMAGE_PACKAGES[@]}" "${TEST_PACKAGES[@]}"; do
        grep -q "^$package: " <<<"$EQUIVALENTS" || die "equivalents.sh does not know $package"
    done
    EQUIVALENTS+=$'here: sh no-such-command|sh library:libc.a header:stdlib.h: this\nlacking: no-such-command shopt header:no-such.h: that\n'
    (need_equivalents here) || die "all is there, and it did not go on"
    said=$(need_equivalents here lacking 2>&1) && die "it went on without what is missing"
    same 'what is missing' "$(printf '  %-28s for that\n' 'header no-such.h' no-such-command shopt)" \
        "$(grep '^  ' <<<"$said")"
}

tests_are_counted() {
    local said=$scratch/said
    mkdir -- "$said"
    same 'a run that did not build' '0 passed, 1 failed' "$(count_tests "$said" 101)"
    {
        printf '    test result: FAILED. 9 passed; 9 failed\n     Summary [ 1s] 9 tests run: 9 passed\n'
        printf '\033[1m     Summary\033[0m [   9.1s] 8/9 tests run: 4 passed (1 slow), 2 failed, 1 exec failed, 1 timed out, 3 skipped\n'
    } >"$said/nextest"
    same 'nextest' '4 passed, 4 failed' "$(count_tests "$said" 100)"
    printf 'test result: ok. 3 passed; 0 failed; 1 ignored\ntest result: FAILED. 2 passed; 1 failed\n' >"$said/test"
    same 'both runners' '9 passed, 5 failed' "$(count_tests "$said" 100)"
    rm -r -- "$said/nextest"
    same 'cargo alone' '5 passed, 1 failed' "$(count_tests "$said" 101)"
    same 'over the budget' 124 "$(within_budget "$((SECONDS + 1))" "$said" sleep 60 2>/dev/null || echo $?)"
    rm -rf -- "$said"
}

# A fault that fits the loop no more would be found out by nobody: they are put in by hand.
faults_of_the_simulation_apply() {
    local patch patches
    patches=("$HERE"/tests/simulation/mutants/*.patch)
    [ ${#patches[@]} -ge 10 ] || die "there are ${#patches[@]} faults"
    for patch in "${patches[@]}"; do
        git -C "$HERE" apply --check -- "$patch" ||
            die "$patch does not apply: fit it to the code (docs/SIMULATION.md)"
    done
}

for story in what_others_made_stays what_up_made_goes down_finds_the_places_of_up \
    a_tpm_authoritys_files_are_given_back \
    other_vms_are_refused equivalents_are_looked_for tests_are_counted faults_of_the_simulation_apply; do
    say "$story"
    "$story"
done
