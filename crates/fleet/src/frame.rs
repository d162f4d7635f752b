//! Readings of the real shape and size, rendered beforehand: rendering one takes longer than all
//! that a receiver does with it should, and must not be measured with it.
//!
//! A guest has a character (its name, processes, disks, interfaces) that its seed decides and that
//! stays; what it reads changes from frame to frame.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// As agents write it: nine fractional digits, and always as long as any other.
pub(crate) const STAMP: &str = "%Y-%m-%dT%H:%M:%S%.9f+00:00";
const STAMP_BYTES: usize = 35;
const HEAD: &str = r#"{"type":"metrics","timestamp":""#;

/// Name and command line; the kernel's own have none.
const PROGRAMS: [(&str, &str); 17] = [
    ("systemd", "/usr/lib/systemd/systemd --switched-root --system --deserialize=31"),
    ("systemd-journald", "/usr/lib/systemd/systemd-journald"),
    (
        "dbus-daemon",
        "/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation",
    ),
    ("sshd", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"),
    ("cron", "/usr/sbin/cron -f"),
    ("rsyslogd", "/usr/sbin/rsyslogd -n -iNONE"),
    ("nginx", "nginx: worker process"),
    ("postgres", "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main"),
    ("redis-server", "/usr/bin/redis-server 127.0.0.1:6379"),
    ("node", "/usr/bin/node --max-old-space-size=2048 /srv/app/current/dist/server.js --port"),
    ("java", "/usr/bin/java -Xms512m -Xmx2g -Dspring.profiles.active=prod -jar /opt/service/app.jar --id"),
    (
        "python3",
        "/usr/bin/python3 /usr/share/unattended-upgrades/unattended-upgrade-shutdown --wait-for-signal",
    ),
    (
        "containerd",
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -address /run/containerd/containerd.sock -id",
    ),
    ("mysqld", "/usr/sbin/mysqld --user=mysql --password="),
    ("kworker/0:1-events", ""),
    ("ksoftirqd/0", ""),
    ("jbd2/vda1-8", ""),
];

const MOUNTS: [&str; 4] = ["/", "/boot/efi", "/var/lib/docker", "/home"];
const INTERFACES: [&str; 3] = ["lo", "ens3", "docker0"];
const PROCESSES: usize = 20;
const PORTS: usize = 7;

/// One line, whose time is not written yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Box<[u8]>);

impl Frame {
    /// The line as sent at this time, newline included.
    #[must_use]
    pub fn at(&self, now: DateTime<Utc>) -> Vec<u8> {
        let mut line = Vec::new();
        self.write(now, &mut line);
        line
    }

    /// Appends it.
    pub(crate) fn write(&self, now: DateTime<Utc>, to: &mut Vec<u8>) {
        let from = to.len() + HEAD.len();
        to.extend_from_slice(&self.0);
        let stamp = now.format(STAMP).to_string();
        // A year of five digits has no place in it; then the frame keeps its first time.
        if let Some(place) = to.get_mut(from..from + STAMP_BYTES)
            && stamp.len() == STAMP_BYTES
        {
            place.copy_from_slice(stamp.as_bytes());
        }
    }

    /// Bytes of its line.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A guest's frames, one after the other and again from the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames(Box<[Frame]>);

impl Frames {
    /// `count` frames, all different and of no other seed, at least one.
    #[must_use]
    pub fn render(seed: u64, count: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let character = Character::new(&mut random);
        Self((0..count.max(1)).map(|number| character.frame(number, &mut random)).collect())
    }

    /// The frame of this number.
    #[must_use]
    pub fn get(&self, number: u64) -> &Frame {
        let count = self.0.len() as u64;
        // Less than the length, which is a usize.
        &self.0[usize::try_from(number % count).unwrap_or(0)]
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Frame> {
        self.0.iter()
    }
}

struct Process {
    id: u32,
    parent: Option<u32>,
    program: &'static str,
    command_line: String,
    start_time: u64,
}

struct Character {
    name: String,
    kernel: String,
    cores: usize,
    memory_kb: u64,
    address: [u8; 3],
    processes: Vec<Process>,
    ports: Vec<(u16, u32, &'static str)>,
    disks: Vec<(&'static str, f64)>,
}

impl Character {
    fn new(random: &mut StdRng) -> Self {
        let started = random.random_range(1_700_000_000..1_760_000_000_u64);
        let mut processes = vec![];
        let mut id = 1;
        for number in 0..PROCESSES {
            let (program, line) =
                PROGRAMS[if number < 6 { number } else { random.random_range(6..PROGRAMS.len()) }];
            let own = random.random::<u64>();
            let command_line = match program {
                "node" | "java" => format!("{line} {}", own % 60_000),
                "containerd" => format!("{line} {own:016x}{:016x}", random.random::<u64>()),
                // What must not be stored as it stands.
                "mysqld" => format!("{line}{own:016x}"),
                _ => line.to_owned(),
            };
            processes.push(Process {
                id,
                parent: random.random_ratio(1, 3).then_some(1),
                program,
                command_line,
                start_time: started + random.random_range(1..9_000_000),
            });
            id += random.random_range(17..4_000);
        }
        let ports = (0..PORTS)
            .map(|_| {
                let process = processes.choose(random).map_or((1, "systemd"), |one| (one.id, one.program));
                (random.random_range(22..65_000), process.0, process.1)
            })
            .collect();
        let disks = MOUNTS.iter().map(|&mount| (mount, random.random_range(0.5..800.0))).collect();
        Self {
            name: format!(
                "{}-{:05x}",
                ["web", "db", "build", "desk"].choose(random).unwrap_or(&"vm"),
                random.random::<u32>() >> 12
            ),
            kernel: format!("6.1.0-{}-amd64", random.random_range(9..39)),
            cores: random.random_range(2..=4),
            memory_kb: random.random_range(2..16) * 1_048_576 - random.random_range(20_000..90_000),
            address: random.random(),
            processes,
            ports,
            disks,
        }
    }

    fn frame(&self, number: usize, random: &mut StdRng) -> Frame {
        let mut text = String::with_capacity(8192);
        // Writing into a String does not fail.
        let _ = self.write(&mut text, number, random);
        Frame(text.into_bytes().into())
    }

    fn write(&self, out: &mut String, number: usize, random: &mut StdRng) -> std::fmt::Result {
        out.write_str(HEAD)?;
        out.write_str("2026-01-01T00:00:00.000000000+00:00")?;
        out.write_str(r#"","data":{"system":{"#)?;
        self.machine(out, random)?;
        self.disks(out, random)?;
        self.network(out, random)?;
        let load = random.random_range(0.0..4.0_f64);
        write!(
            out,
            r#""system":{{"uptime_seconds":{},"name":"Debian GNU/Linux","os_version":"12 (bookworm)","kernel_version":"{}","hostname":"{}","load_average":{{"load_1min":{:.2},"load_5min":{:.2},"load_15min":{:.2}}}}},"#,
            1000 + number * 30,
            self.kernel,
            self.name,
            load,
            load * 0.9,
            load * 0.7
        )?;
        self.processes(out, random)?;
        out.write_str(r#","ports":["#)?;
        for (index, (port, process, program)) in self.ports.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (protocol, state) = if index % 4 == 3 { ("udp", "UNKNOWN") } else { ("tcp", "LISTEN") };
            write!(
                out,
                r#"{comma}{{"port":{port},"protocol":"{protocol}","state":"{state}","process_id":{process},"process_name":"{program}","is_listening":{}}}"#,
                state == "LISTEN"
            )?;
        }
        out.write_str("],\"windows_services\":[]}}}\n")
    }

    fn machine(&self, out: &mut String, random: &mut StdRng) -> std::fmt::Result {
        let cpu = random.random_range(0.1..99.0_f32);
        write!(out, r#""cpu":{{"usage_percent":{cpu},"cores_usage":["#)?;
        for core in 0..self.cores {
            write!(out, "{}{}", if core == 0 { "" } else { "," }, random.random_range(0.0..100.0_f32))?;
        }
        let used = random.random_range(self.memory_kb / 8..self.memory_kb);
        write!(
            out,
            r#"],"temperature":null}},"memory":{{"total_kb":{},"used_kb":{used},"available_kb":{},"swap_total_kb":{},"swap_used_kb":{}}},"#,
            self.memory_kb,
            self.memory_kb - used,
            2_097_148,
            random.random_range(0..2_097_148)
        )
    }

    fn disks(&self, out: &mut String, random: &mut StdRng) -> std::fmt::Result {
        out.write_str(r#""disk":{"usage_stats":["#)?;
        for (index, (mount, total)) in self.disks.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let used = total * random.random_range(0.05..0.95);
            write!(
                out,
                r#"{comma}{{"mount_point":"{mount}","total_gb":{total},"used_gb":{used},"available_gb":{},"filesystem":"{}"}}"#,
                total - used,
                if *mount == "/boot/efi" { "vfat" } else { "ext4" }
            )?;
        }
        write!(
            out,
            r#"],"io_stats":{{"read_bytes_per_sec":{},"write_bytes_per_sec":{},"read_ops_per_sec":{},"write_ops_per_sec":{}}}}},"#,
            random.random_range(0..90_000_000),
            random.random_range(0..90_000_000),
            random.random_range(0..3000),
            random.random_range(0..3000)
        )
    }

    fn network(&self, out: &mut String, random: &mut StdRng) -> std::fmt::Result {
        out.write_str(r#""network":{"interfaces":["#)?;
        let [a, b, c] = self.address;
        for (index, name) in INTERFACES.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let received = random.random_range(0..90_000_000_000_u64);
            let sent = random.random_range(0..90_000_000_000_u64);
            let address = match index {
                0 => r#""127.0.0.1","::1""#.to_owned(),
                1 => format!(r#""10.{a}.{b}.{c}","fe80::5054:ff:fe{a:02x}:{b:02x}{c:02x}""#),
                _ => format!(r#""172.1{index}.0.1""#),
            };
            write!(
                out,
                r#"{comma}{{"name":"{name}","bytes_received":{received},"bytes_sent":{sent},"packets_received":{},"packets_sent":{},"errors_in":0,"errors_out":0,"ip_addresses":[{address}],"is_up":true}}"#,
                received / 900,
                sent / 700
            )?;
        }
        out.write_str("]},")
    }

    fn processes(&self, out: &mut String, random: &mut StdRng) -> std::fmt::Result {
        out.write_str(r#""processes":["#)?;
        for (index, process) in self.processes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let Process { id, parent, program, command_line, start_time } = process;
            let paths = if command_line.is_empty() {
                r#""executable_path":null,"command_line":null"#.to_owned()
            } else {
                format!(r#""executable_path":"/usr/bin/{program}","command_line":"{command_line}""#)
            };
            write!(
                out,
                r#"{comma}{{"id":{id},"parent_id":{},"name":"{program}",{paths},"cpu_usage_percent":{},"memory_usage_kb":{},"status":"{}","start_time":{start_time}}}"#,
                parent.map_or("null".to_owned(), |id| id.to_string()),
                random.random_range(0.0..180.0_f32),
                random.random_range(900..2_000_000),
                if random.random_bool(0.8) { "Sleep" } else { "Run" }
            )?;
        }
        out.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use agent_protocol::GuestMessage;

    use super::*;

    #[test]
    fn frames_have_the_real_shape_and_size_and_differ() {
        let mut seen = HashSet::new();
        let (mut bytes, mut count) = (0, 0);
        for seed in 0..50 {
            for frame in Frames::render(seed, 10).iter() {
                let now = Utc::now();
                let line = frame.at(now);
                assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
                let GuestMessage::Metrics(metrics) = GuestMessage::decode(&line).unwrap() else {
                    panic!("not a reading");
                };
                assert_eq!(metrics.timestamp, now);
                let system = metrics.system;
                assert!(system.cpu_usage.is_some_and(|cpu| (0.0..=100.0).contains(&cpu)));
                assert!(system.memory_used < system.memory_total);
                assert!(system.disk_read.is_some() && system.network_sent.is_some());
                bytes += line.len();
                count += 1;
                seen.insert(frame.at(DateTime::UNIX_EPOCH));
            }
        }
        assert_eq!(seen.len(), count, "all different");
        let mean = bytes / count;
        assert!((7_000..7_800).contains(&mean), "{mean} bytes each");
    }

    #[test]
    fn a_seed_decides_all() {
        assert_eq!(Frames::render(7, 3), Frames::render(7, 3));
        assert_ne!(Frames::render(7, 3), Frames::render(8, 3));
        let some = Frames::render(7, 3);
        assert_eq!(some.get(4), some.get(1));
    }
}
