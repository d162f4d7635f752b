//! The QEMU agent in a story's guest: a few lines of shell that speak its protocol on the real
//! channel and write down what they are told.

use super::daemon::Client;

/// `PAUSE` is how long freezing takes.
const SCRIPT: &str = r#"
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat $name)" = org.qemu.guest_agent.0 ] && port=/dev/$(basename $(dirname $name))
done
cat >/tmp/qga <<'EOF'
exec 3<>$1
# Nothing is read until libvirt has connected.
while :; do read -r line <&3 || { sleep 1; continue; }
    case $line in
    *guest-sync*) id=${line##*\"id\":}; id=${id# }; id=${id%%\}*}; echo "{\"return\": $id}" >&3 ;;
    *fsfreeze-freeze*) echo freeze >>/tmp/qga.log; : >/tmp/qga.frozen; sleep PAUSE; echo '{"return": 1}' >&3 ;;
    *fsfreeze-thaw*) echo thaw >>/tmp/qga.log
        case $(cat /tmp/qga.thaws) in
        well) count=0; [ -e /tmp/qga.frozen ] && rm /tmp/qga.frozen && count=1
            echo "{\"return\": $count}" >&3 ;;
        badly) echo '{"error": {"class": "GenericError", "desc": "it is stuck"}}' >&3 ;;
        esac ;;
    *guest-get-time*) echo '{"return": 1700000000000000000}' >&3 ;;
    *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
    esac
done
EOF
: >/tmp/qga.log
echo well >/tmp/qga.thaws
setsid sh /tmp/qga $port </dev/null >/dev/null 2>&1 &
sleep 1
echo started $port
"#;

/// Starts it; freezing takes so many seconds.
pub async fn start(client: &Client, vm: &str, pause: u32) {
    let started = client.output(vm, &SCRIPT.replace("PAUSE", &pause.to_string())).await;
    assert!(started.starts_with("started /dev/vport"), "{started}");
}

/// How it thaws from now on: `well`, `badly` (it answers that it cannot), or `never` an answer.
pub async fn thaws(client: &Client, vm: &str, how: &str) {
    client.output(vm, &format!("echo {how} >/tmp/qga.thaws")).await;
}

/// What it was told so far: `freeze` and `thaw`, a line each.
pub async fn told(client: &Client, vm: &str) -> String {
    client.output(vm, "cat /tmp/qga.log").await
}

/// Forgets what it was told.
pub async fn forget(client: &Client, vm: &str) {
    client.output(vm, ": >/tmp/qga.log").await;
}
