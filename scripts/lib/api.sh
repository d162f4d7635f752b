# shellcheck shell=bash
# The daemon's GraphQL API, spoken with curl and jq. Sourced, never run.
#
# Uses INFINIBAY_URL and INFINIBAY_TOKEN.

# graphql QUERY [VARIABLES]: prints `data`. Fails with the server's words in API_ERROR, and its
# code in API_CODE (empty: the server was not reached or answered no GraphQL).
graphql() {
    local body answer
    API_ERROR='' API_CODE=''
    body=$(jq -cn --arg query "$1" --argjson variables "${2:-null}" '{query: $query, variables: $variables}')
    # The token goes through a descriptor: arguments are visible to every user of the host.
    if ! answer=$(curl --silent --show-error --noproxy '*' --max-time 120 \
        --config <(printf 'header = "Authorization: Bearer %s"\n' "$INFINIBAY_TOKEN") \
        --header 'Content-Type: application/json' --data-binary @- \
        "$INFINIBAY_URL/graphql" <<<"$body" 2>&1); then
        API_ERROR="the API did not answer: $answer"
        return 1
    fi
    if ! jq -e 'type == "object" and (has("data") or has("errors"))' <<<"$answer" >/dev/null 2>&1; then
        API_ERROR="the API answered something else than GraphQL: ${answer:0:300}"
        return 1
    fi
    if jq -e '(.errors // []) | length > 0' <<<"$answer" >/dev/null; then
        API_CODE=$(jq -r '.errors[0].extensions.code // ""' <<<"$answer")
        API_ERROR=$(jq -r '[.errors[] | .message] | join("; ")' <<<"$answer")
        return 1
    fi
    jq -c '.data' <<<"$answer" >"$API_ANSWER"
}

# ask QUERY [VARIABLES]: graphql, or the end of the script.
ask() {
    graphql "$@" || die "${API_CODE:+$API_CODE: }$API_ERROR"
}

# answer FILTER: a value of the last answer, for people or for the next question. What comes from
# guests may carry anything; a terminal gets no control characters of theirs.
answer() {
    jq -r "$1" "$API_ANSWER" | LC_ALL=C sed 's/\xc2[\x80-\x9f]//g' | tr -d '\000-\010\013-\037\177'
}

# prepare_api: a place for answers.
prepare_api() {
    local dir
    make_temp_dir dir
    API_ANSWER=$dir/answer
}

# follow_operation ID SECONDS: shows each stage as it comes; fails when the operation fails or has
# not ended in time, with the reason in API_ERROR.
follow_operation() {
    local id=$1 deadline=$((SECONDS + $2)) shown='' line status
    while true; do
        # shellcheck disable=SC2016 # GraphQL's own variables
        ask 'query($id: UUID!) { operation(id: $id) { status progress stage error { code message } } }' \
            "$(jq -n --arg id "$id" '{id: $id}')"
        status=$(answer '.operation.status')
        line=$(answer '.operation | "\(.stage // .status) (\(.progress) %)"')
        if [ "$line" != "$shown" ]; then
            say "  $line"
            shown=$line
        fi
        case $status in
            SUCCEEDED) return 0 ;;
            FAILED | SUPERSEDED)
                API_ERROR=$(answer '.operation | "\(.error.code // .status): \(.error.message // "no reason was given")"')
                return 1
                ;;
        esac
        if [ "$SECONDS" -ge "$deadline" ]; then
            API_ERROR="the operation $id has not ended; its last stage is $line"
            return 1
        fi
        sleep 1
    done
}
