//! A first look at a line that tells most of those in which there is nothing to hide: a frame of
//! metrics brings twenty lines, and reading each word by word takes longer than reading the frame.
//!
//! It may call an innocent line suspect, never the other way: none of the reader's rules may find
//! anything in a line that passes here.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::{FLAGS, MAX_DEPTH, TELLING, TELLING_WORDS};

/// Every word that a rule looks for, as it looks after [`squeeze`].
static SUSPECT: LazyLock<Regex> = LazyLock::new(|| {
    let mut words: Vec<String> = TELLING
        .into_iter()
        .chain(TELLING_WORDS)
        .chain(FLAGS.map(|(program, ..)| program))
        .chain(["chpasswd", "--stdin"])
        .map(|word| {
            let mut squeezed = Vec::new();
            squeeze(word, &mut squeezed);
            String::from_utf8(squeezed).expect("ASCII")
        })
        .collect();
    // A word that has another one in it is found by that one, and a short list many times faster.
    words.sort_by_key(String::len);
    let mut telling: Vec<String> = Vec::new();
    for word in words {
        if !telling.iter().any(|shorter| word.contains(shorter)) {
            telling.push(word);
        }
    }
    Regex::new(&telling.join("|")).expect("letters and bars")
});

/// Letters and digits of ASCII alone, in lower case: `API_Key` and `api-key` are `apikey`.
fn squeeze(line: &str, out: &mut Vec<u8>) {
    out.extend(line.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase()));
}

/// Whether nothing in the line can be a secret by any rule.
pub(super) fn is_innocent(line: &str) -> bool {
    // Each line within a line takes a quote, and one too deep is hidden whole.
    let quotes = line.bytes().filter(|byte| matches!(byte, b'"' | b'\'')).count();
    if quotes > usize::from(MAX_DEPTH) || line.contains("://") && line.contains('@') {
        return false;
    }
    let mut squeezed = Vec::with_capacity(line.len());
    squeeze(line, &mut squeezed);
    !SUSPECT.is_match(&squeezed)
}

#[cfg(test)]
mod tests {
    use super::is_innocent;

    #[test]
    fn what_guests_run_all_day_is_innocent() {
        for line in [
            "",
            "/sbin/init",
            "/usr/lib/systemd/systemd-journald",
            "/usr/sbin/cron -f -P",
            "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
            "/usr/bin/python3 /srv/app/manage.py runserver 0.0.0.0:8000 --noreload",
            "sh -c 'exec \"$0\" x' y",
            "C:/Windows/System32/svchost.exe -k netsvcs",
            "node server.js --base https://example.org/x",
        ] {
            assert!(is_innocent(line), "{line}");
        }
        for line in ["x --API-Key=1", "p a s s", "a 'b \"c 'd' e\" f'", "ftp://u:x@h", "curl x"] {
            assert!(!is_innocent(line), "{line}");
        }
    }
}
