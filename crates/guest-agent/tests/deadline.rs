//! A command's time is over: it ends, and everything it started with it.

#[path = "support/host.rs"]
mod host;

use std::time::{Duration, Instant};

use host::{Agent, code, until};

#[test]
fn the_grandchild_ends_too() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    let begun = Instant::now();
    host.shell("1", "(trap '' TERM HUP; echo $(exec sh -c 'echo $PPID'); sleep 100) & echo begun; wait", 1);
    let answer = host.answer("1");
    assert_eq!((code(&answer), answer.exit_code), ("TIMEOUT", None));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(answer.data.as_ref().unwrap()["timed_out"], true);
    let pid: u32 = answer.stdout.lines().find_map(|l| l.parse().ok()).expect("the grandchild's pid");
    // Ended, it may wait as a zombie for init.
    until("the grandchild is gone", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
}

#[test]
fn a_background_process_does_not_hold_the_answer() {
    let agent = Agent::on_socket(&[]);
    let mut host = agent.host();
    let begun = Instant::now();
    host.shell("1", "sleep 25 & echo $!", 20);
    let answer = host.answer("1");
    assert!(answer.success && begun.elapsed() < Duration::from_secs(15), "{answer:?}");
    host.shell("2", &format!("kill {}", answer.stdout.trim()), 5);
    assert!(host.answer("2").success, "the process was left alone");
}
