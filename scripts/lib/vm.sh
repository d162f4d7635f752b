# shellcheck shell=bash
# The VM of `scripts/up`: made, awaited, asked and shown through the API. Sourced, never run.
#
# The VM's id is chosen and written down before the VM is asked for: a run that was cut short
# anywhere finds its VM again instead of making a second one.

VM_FILE=$UP_DIR/vm
# A first boot under emulation, on a busy machine.
VM_BUDGET=${INFINIBAY_UP_BUDGET:-600}

# vm_id: the id of our VM, chosen at the first call.
vm_id() {
    if [ ! -s "$VM_FILE" ]; then
        cat /proc/sys/kernel/random/uuid >"$VM_FILE.part"
        mv -f -- "$VM_FILE.part" "$VM_FILE"
    fi
    cat -- "$VM_FILE"
}

# vm_exists: whether the daemon knows our VM.
vm_exists() {
    # shellcheck disable=SC2016 # GraphQL's own variables, here and below
    graphql 'query($id: UUID!) { vm(id: $id) { id phase } }' "$(vm_variables)" || {
        [ "$API_CODE" = VM_NOT_FOUND ] && return 1
        die "${API_CODE:+$API_CODE: }$API_ERROR"
    }
    [ "$(answer '.vm.id // ""')" != "" ]
}

vm_variables() {
    jq -n --arg id "$(vm_id)" '{id: $id}'
}

# ensure_vm NAME IMAGE: our VM exists and was told to run; waits for the operation.
ensure_vm() {
    if ! vm_exists; then
        say "creating the VM $1 from the image $2"
        wait_until "$VM_BUDGET" "the check of the image $2" vm_is_accepted "$(vm_input "$1" "$2")" ||
            die "$API_CODE: $API_ERROR"
        follow_operation "$(answer '.createVm.operation.id')" "$VM_BUDGET" || vm_failed
        return
    fi
    case $(answer '.vm.phase') in
        RUNNING | INSTALLING | PROVISIONING | STARTING) say "the VM $1 is there" ;;
        *)
            say "starting the VM $1"
            # shellcheck disable=SC2016
            ask 'mutation($id: UUID!) { startVm(id: $id) { operation { id } } }' "$(vm_variables)"
            follow_operation "$(answer '.startVm.operation.id')" "$VM_BUDGET" || vm_failed
            ;;
    esac
}

# vm_is_accepted INPUT: asks for the VM; false while its image is read for the first time.
vm_is_accepted() {
    # shellcheck disable=SC2016
    graphql 'mutation($i: CreateVmInput!) { createVm(input: $i) { operation { id } } }' "$1" || {
        [ "$API_CODE" = IMAGE_BEING_CHECKED ] && return 1
        die "${API_CODE:+$API_CODE: }$API_ERROR"
    }
}

# vm_input NAME IMAGE: the VM we ask for. The keys of the person at work go in, so that ssh works.
# The pocket guest has no system that could be told anything.
vm_input() {
    local keys
    keys=$(cat -- "${HOME:-/root}"/.ssh/id_*.pub 2>/dev/null || true)
    jq -n --arg id "$(vm_id)" --arg name "$1" --arg image "$2" --arg keys "$keys" '{i: {
        id: $id, name: $name, image: $image, vcpus: 2, memoryMib: 1024, diskGib: 4,
        pool: "default", network: "default",
        unattended: (if $image == "pocket" then null else {
            user: "infinibay", hostname: $name, timezone: "UTC",
            sshKeys: ($keys | split("\n") | map(select(. != "")))
        } end)
    }}'
}

# vm_failed: says why, with the conditions that tell more, and ends.
vm_failed() {
    local reason=$API_ERROR
    # shellcheck disable=SC2016
    if graphql 'query($id: UUID!) { vm(id: $id) { phase conditions { type status reason message } } }' \
        "$(vm_variables)"; then
        answer '.vm | "phase: \(.phase)", (.conditions[] | "  \(.type)=\(.status) \(.reason): \(.message)")' >&2
    fi
    die "$reason"
}

# await_agent: waits until the agent in the VM is heard.
await_agent() {
    wait_until "$VM_BUDGET" "the agent in the VM" agent_is_online || {
        API_ERROR="the VM runs, but its agent was not heard"
        vm_failed
    }
}

VM_SHOWN=''

# agent_is_online: also shows what the VM is at, when that has changed.
agent_is_online() {
    local line
    # shellcheck disable=SC2016
    ask 'query($id: UUID!) { vm(id: $id) { phase agent { connectivity } } }' "$(vm_variables)"
    line=$(answer '.vm | "\(.phase | ascii_downcase), agent \(.agent.connectivity | ascii_downcase)"')
    if [ "$line" != "$VM_SHOWN" ]; then
        say "  $line"
        VM_SHOWN=$line
    fi
    [ "$(answer '.vm.agent.connectivity')" = ONLINE ]
}

# as_a_person BINARY ARG…: the command line for people, shown as it is typed, with the daemon of `up` in
# its environment.
as_a_person() {
    local binary=$1
    shift
    printf '$ infinibay %s\n' "$*"
    INFINIBAY_URL=$INFINIBAY_URL INFINIBAY_TOKEN=$INFINIBAY_TOKEN "$binary" "$@" ||
        die "infinibay $* ended with $?"
    printf '\n'
}

metrics_are_there() {
    # shellcheck disable=SC2016
    ask 'query($id: UUID!) { getVmMetrics(vmId: $id, hours: 1) { timestamp } }' "$(vm_variables)"
    [ "$(answer '.getVmMetrics | length')" -gt 0 ]
}

# await_metrics: the first frames are stored with the next batch.
await_metrics() {
    wait_until 90 "the first stored reading" metrics_are_there || die "no reading of the VM was stored"
}

# list_vms: id, name and phase of all VMs that the daemon has, one VM a line. Fails when it has not
# seen the end of the list: an empty answer must mean that there are none.
list_vms() {
    local variables='{}'
    while true; do
        # shellcheck disable=SC2016
        ask 'query($after: String) { vms(first: 50, after: $after) {
                nodes { id name phase } pageInfo { hasNextPage endCursor } } }' "$variables"
        answer '.vms.nodes[] | "\(.id) \(.name) \(.phase)"' || return 1
        case $(answer '.vms.pageInfo.hasNextPage') in
            false) return 0 ;;
            true) variables=$(jq '{after: .vms.pageInfo.endCursor}' "$API_ANSWER") || return 1 ;;
            *) return 1 ;;
        esac
    done
}

# refuse_other_vms: ends, with their names, when the daemon has other VMs than ours.
refuse_other_vms() {
    local others id name phase
    others=$(list_vms) || die "the daemon's VMs could not be listed"
    others=$(awk -v ours="$(cat -- "$VM_FILE" 2>/dev/null || true)" '$1 != ours' <<<"$others")
    [ -z "$others" ] && return
    {
        printf 'error: nothing was taken back: the daemon has VMs that scripts/up did not make\n'
        while read -r id name phase; do
            printf '  %-24s %s  %s\n' "$name" "$id" "$phase"
        done <<<"$others"
        printf 'Delete them through the API, or let scripts/down --all delete them and their disks.\n'
    } >&2
    exit 1
}

# delete_vms: all VMs that the daemon has are deleted and gone.
delete_vms() {
    local vms id name phase operations=() i
    vms=$(list_vms) || die "the daemon's VMs could not be listed"
    if [ -n "$vms" ]; then
        # All are told first: they end at the same time.
        while read -r id name phase; do
            say "deleting the VM $name ($id, ${phase,,})"
            # shellcheck disable=SC2016
            ask 'mutation($id: UUID!) { deleteVm(id: $id) { operation { id } } }' \
                "$(jq -n --arg id "$id" '{id: $id}')"
            operations+=("$(answer '.deleteVm.operation.id')")
        done <<<"$vms"
        for i in "${operations[@]}"; do
            follow_operation "$i" 180 || die "a VM could not be deleted: $API_ERROR"
        done
        vms=$(list_vms) || die "the daemon's VMs could not be listed"
        [ -z "$vms" ] || die "there are still VMs; somebody makes them at this moment: $vms"
    fi
    rm -f -- "$VM_FILE"
}
