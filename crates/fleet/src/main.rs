//! `fleet`: pretended guests in a process of their own, beside what is measured.
//!
//! Says on standard output, one JSON object a line: `{"ready":[{"vm","kind"}…]}` once all sockets
//! are bound, `{"report":{totals}}` every second, and at its end `{"end":{totals},"guests":[…]}`.
//! It ends when its standard input does, or with SIGTERM.

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use fleet::{Fleet, GuestPlan, Kind, Plan, Report};
use serde_json::{Value, json};
use tokio::{signal::unix::SignalKind, sync::oneshot};
use uuid::Uuid;

/// Pretended guests: sockets as QEMU offers them, with agents of all kinds behind.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the sockets are made: `vm-<uuid>.sock`.
    #[arg(long)]
    dir: PathBuf,
    /// How guests behave: well-behaved, quirky, flooding, slow-dripping, silent, never-reading,
    /// storm or liar.
    #[arg(long, default_value = "well-behaved")]
    kind: Kind,
    /// How many; their ids come from the seed.
    #[arg(long, conflicts_with = "ids", required_unless_present = "ids")]
    guests: Option<usize>,
    /// A file with one id per line, or an id and a kind.
    #[arg(long)]
    ids: Option<PathBuf>,
    /// Between two readings of a guest; 0: as fast as they are taken.
    #[arg(long, default_value_t = 30_000)]
    interval_ms: u64,
    /// Decides all that is sent.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Different frames per guest that are rendered beforehand.
    #[arg(long, default_value_t = 4, conflicts_with = "frames_total")]
    frames: usize,
    /// Readings that all guests send together, all different; the first guests send one more where
    /// they cannot be shared evenly.
    #[arg(long)]
    frames_total: Option<u64>,
    /// Between two signs of life; 0: none.
    #[arg(long, default_value_t = 60_000)]
    keep_alive_ms: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let fleet = Fleet::start(&arguments.dir, plan(arguments)?)?;
    let ready: Vec<Value> =
        fleet.reports().iter().map(|guest| json!({"vm": guest.vm, "kind": guest.kind})).collect();
    say(&json!({ "ready": ready }))?;
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let mut ended = input_ends();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => say(&json!({ "report": Report::total(&fleet.reports()) }))?,
            _ = terminate.recv() => break,
            _ = &mut ended => break,
        }
    }
    let guests = fleet.stop().await;
    say(&json!({ "end": Report::total(&guests), "guests": guests }))?;
    Ok(())
}

/// Comes when standard input ends. Whoever started this process and died has closed it, too.
fn input_ends() -> oneshot::Receiver<()> {
    let (ended, told) = oneshot::channel();
    std::thread::spawn(move || {
        while matches!(std::io::stdin().read(&mut [0; 512]), Ok(1..)) {}
        // Nobody waits any more when the process ends for another reason.
        let _ = ended.send(());
    });
    told
}

fn say(line: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn plan(arguments: &Arguments) -> Result<Plan, Box<dyn std::error::Error>> {
    let interval = Duration::from_millis(arguments.interval_ms);
    let mut plan = Plan::of(arguments.kind, arguments.guests.unwrap_or(0), interval, arguments.seed);
    if let Some(file) = &arguments.ids {
        let text = std::fs::read_to_string(file)?;
        for (seed, line) in (arguments.seed..).zip(text.lines().filter(|line| !line.trim().is_empty())) {
            let mut words = line.split_whitespace();
            let vm: Uuid = words.next().unwrap_or_default().parse()?;
            let kind = words.next().map_or(Ok(arguments.kind), str::parse)?;
            plan.guests.push(GuestPlan::new(vm, kind, interval, seed));
        }
    }
    let count = plan.guests.len() as u64;
    let keep_alive = Some(Duration::from_millis(arguments.keep_alive_ms)).filter(|every| !every.is_zero());
    for (number, guest) in (0..).zip(&mut plan.guests) {
        guest.frames = arguments.frames;
        guest.keep_alive = keep_alive;
        if let Some(total) = arguments.frames_total {
            let share = total / count + u64::from(number < total % count);
            *guest = guest.clone().sending(share);
        }
    }
    Ok(plan)
}
