//! Command lines without their secrets, as far as secrets can be told by their company.
//!
//! Lines typed by people and lines reported by guests are kept and shown; passwords in them must
//! not be. The rules are few and err towards hiding: a value is hidden when a name or a flag
//! before it sounds like a password, when it is the password of a URL, or when the program is
//! known to take it there. What no rule knows is kept, so nobody should rely on this alone:
//! secrets belong in environment variables, whose values are never kept.

mod innocent;
mod rules;
mod tree;

use std::{borrow::Cow, sync::Arc};

pub use rules::RedactionError;
use rules::Rules;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// A quoted line inside a line (`sh -c "…"`) is read too, this deep.
const MAX_DEPTH: u8 = 4;

/// Parts that make any name they occur in a secret's.
const TELLING: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "securestring",
];

/// Whole words that do; shorter ones would be found in innocent names.
const TELLING_WORDS: [&str; 7] = ["pass", "pw", "pwd", "psk", "passin", "passout", "bearer"];

/// Programs whose short flag is followed by a secret: `-p secret` or, attached, `-psecret`.
const FLAGS: [(&str, &str, Attached); 13] = [
    ("mysql", "-p", Attached::Only),
    ("mysqldump", "-p", Attached::Only),
    ("mysqladmin", "-p", Attached::Only),
    ("mariadb", "-p", Attached::Only),
    ("mariadb-dump", "-p", Attached::Only),
    ("sshpass", "-p", Attached::May),
    ("useradd", "-p", Attached::May),
    ("usermod", "-p", Attached::May),
    ("curl", "-u", Attached::May),
    ("curl", "--user", Attached::May),
    ("redis-cli", "-a", Attached::May),
    ("smbclient", "-U", Attached::May),
    ("ldapsearch", "-w", Attached::May),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attached {
    /// `-p` alone asks at the terminal.
    Only,
    May,
}

/// Hides secrets by the built-in rules and an operator's own. Clones share the rules.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// `None`: the built-in rules alone.
    own: Option<Arc<Rules>>,
}

impl Redactor {
    /// With rules besides the built-in ones: names of variables, flags and fields whose values are
    /// hidden; flags followed by a secret, as `program -flag`; regular expressions, of which the
    /// first group is hidden, or all of the match where there is no group.
    ///
    /// # Errors
    /// The first rule that cannot be used.
    pub fn new(names: &[&str], flags: &[&str], patterns: &[&str]) -> Result<Self, RedactionError> {
        let rules = Rules::new(names, flags, patterns)?;
        Ok(Self { own: (!rules.is_empty()).then(|| Arc::new(rules)) })
    }

    /// The line with its secrets replaced by `***`.
    #[must_use]
    pub fn hide<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let hidden = redact_command_line(line);
        match self.own.as_deref().and_then(|rules| rules.hide(&hidden)) {
            Some(hidden) => Cow::Owned(hidden),
            None => hidden,
        }
    }
}

fn redact_command_line(line: &str) -> Cow<'_, str> {
    // Nearly all of the lines that guests report.
    if innocent::is_innocent(line) {
        return Cow::Borrowed(line);
    }
    let read = read_all(line);
    if read == line { Cow::Borrowed(line) } else { Cow::Owned(read) }
}

fn read_all(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    Reader::new(line, 0).read(line, &mut out);
    out
}

/// Whether a variable's, a flag's or a field's name sounds like a secret's.
fn is_telling(name: &str) -> bool {
    let flag = name.starts_with('-');
    let name = name.to_ascii_lowercase();
    let joined: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if TELLING.iter().any(|part| joined.contains(part)) {
        return true;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    // `PWD` alone is a directory.
    joined != "oldpwd" && (flag || joined != "pwd") && words.any(|word| TELLING_WORDS.contains(&word))
}

/// Reads one line word by word.
struct Reader<'a> {
    depth: u8,
    /// The program of the present simple command.
    program: Option<&'a str>,
    /// Words to hide whatever they are.
    hide: u8,
    /// The word before was a telling name without its value: `password = x`.
    named: bool,
    /// The line feeds `name:password` pairs or a bare password to a program.
    feeds: bool,
}

impl<'a> Reader<'a> {
    fn new(line: &str, depth: u8) -> Self {
        let feeds = line.contains("chpasswd") || line.contains("--stdin");
        Self { depth, program: None, hide: 0, named: false, feeds }
    }

    fn read(&mut self, mut rest: &'a str, out: &mut String) {
        while let Some(first) = rest.chars().next() {
            if first.is_whitespace() {
                // A new line begins a new command, but `password:` may stand before its value.
                if first == '\n' {
                    self.program = None;
                }
                out.push(first);
                rest = &rest[first.len_utf8()..];
            } else if is_separator(first) {
                // A redirection or an end: what follows is no value of what came before.
                (self.hide, self.named) = (0, false);
                if first != '<' && first != '>' {
                    self.program = None;
                }
                out.push(first);
                rest = &rest[first.len_utf8()..];
            } else {
                let (word, after) = rest.split_at(word_end(rest));
                self.word(word, out);
                rest = after;
            }
        }
    }

    fn word(&mut self, word: &'a str, out: &mut String) {
        let named = std::mem::take(&mut self.named);
        if self.hide > 0 {
            self.hide -= 1;
            // `Authorization: Bearer x` has a word between.
            if matches!(bare(word).to_ascii_lowercase().as_str(), "bearer" | "basic" | "=" | ":") {
                self.hide = 1;
                out.push_str(word);
            } else {
                out.push_str(HIDDEN);
            }
            return;
        }
        if named && matches!(word, "=" | ":" | ":=") {
            self.hide = 1;
            out.push_str(word);
            return;
        }
        // What backslashes alone hold together is one word, not a line.
        if word.contains(char::is_whitespace)
            && let Some(quote) = word.find(['"', '\''])
        {
            return self.quoted_line(word, quote, out);
        }
        if let Some(kept) = value_start(word) {
            hide_from(word, kept, out);
            // `password:` with its value in the next word.
            if bare(&word[kept..]).is_empty() {
                out.truncate(out.len() - HIDDEN.len());
                self.hide = 1;
            }
            return;
        }
        if let Some(program) = self.program {
            if let Some(kept) = self.known_flag(program, word) {
                return if kept < word.len() {
                    hide_from(word, kept, out);
                } else {
                    self.hide = 1;
                    out.push_str(word);
                };
            }
            if self.feeds && matches!(program, "echo" | "printf") && !word.starts_with('-') {
                return out.push_str(HIDDEN);
            }
        } else if !word.contains('=') && !matches!(word, "sudo" | "env" | "exec" | "nohup" | "time") {
            self.program = Some(bare(word).rsplit(['/', '\\']).next().unwrap_or(word));
        }
        let lower = bare(word).to_ascii_lowercase();
        if is_telling(bare(word)) {
            let takes_next = word.starts_with('-') || lower == "bearer" || lower.ends_with("securestring");
            self.hide = u8::from(takes_next);
            self.named = true;
            return out.push_str(word);
        }
        if self.feeds
            && let Some(colon) = word.find(':')
        {
            return hide_from(word, colon + 1, out);
        }
        url_password(word, out);
    }

    /// A word of several words: a line in quotes.
    fn quoted_line(&mut self, word: &'a str, quote: usize, out: &mut String) {
        if self.depth == MAX_DEPTH {
            return out.push_str(HIDDEN);
        }
        // `NAME="several words"` is a value, not a line.
        if let Some(kept) = value_start(&word[..quote]) {
            return hide_from(word, kept, out);
        }
        let (head, inner) = word.split_at(quote + 1);
        let inner_end = inner.len() - usize::from(inner.ends_with(['"', '\'']));
        out.push_str(head);
        let mut reader = Reader::new(inner, self.depth + 1);
        reader.feeds |= self.feeds;
        if self.feeds {
            // What is echoed to a password program is a secret, in quotes or not.
            reader.program = self.program;
        }
        reader.read(&inner[..inner_end], out);
        out.push_str(&inner[inner_end..]);
    }

    /// Where the secret begins in a flag that this program is known to take it with; the word's
    /// end when it is in the next word.
    #[expect(clippy::unused_self, reason = "reads as a rule of the reader")]
    fn known_flag(&self, program: &str, word: &str) -> Option<usize> {
        let program = program.strip_suffix(".exe").unwrap_or(program);
        FLAGS.iter().filter(|(name, ..)| *name == program).find_map(|(_, flag, attached)| {
            let rest = word.strip_prefix(flag)?;
            let long = flag.starts_with("--");
            match rest.chars().next() {
                None => (*attached == Attached::May).then_some(word.len()),
                Some('=') => Some(flag.len() + 1),
                Some(_) => (!long).then_some(flag.len()),
            }
        })
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ';' | '|' | '&' | '(' | ')' | '<' | '>')
}

/// Where the first word of the text ends; quotes and backslashes hold it together.
fn word_end(text: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            None if c.is_whitespace() || is_separator(c) => return at,
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => escaped = c == '\\' && quote != Some('\''),
        }
    }
    text.len()
}

/// Without the quotes around it.
fn bare(word: &str) -> &str {
    word.trim_matches(['"', '\'', '{', '}', ','])
}

/// Where the value begins in a word that names a secret and holds its value: `NAME=`, `name:`.
fn value_start(word: &str) -> Option<usize> {
    word.char_indices().filter(|&(_, c)| c == '=' || c == ':').find_map(|(at, c)| {
        let before = word[..at].trim_end_matches(['"', '\'', '\\']);
        let name = before.rsplit(|c: char| !(c.is_alphanumeric() || "-_.".contains(c))).next()?;
        is_telling(name).then_some(at + c.len_utf8())
    })
}

/// Keeps the word up to `kept`, hides the rest, and closes the quote that the word opened.
fn hide_from(word: &str, kept: usize, out: &mut String) {
    out.push_str(&word[..kept]);
    out.push_str(HIDDEN);
    let quote = word.chars().next().filter(|c| matches!(c, '"' | '\''));
    if let Some(quote) = quote
        && word.len() > kept
        && word.ends_with(quote)
    {
        out.push(quote);
    }
}

/// `scheme://user:password@host`, and a lone token before `@` in web addresses.
fn url_password(word: &str, out: &mut String) {
    let hidden = word.find("://").and_then(|scheme| {
        let authority = scheme + 3;
        let end = word[authority..].find(['/', '?', '#']).map_or(word.len(), |at| authority + at);
        let at = authority + word[authority..end].rfind('@')?;
        let colon = word[authority..at].find(':').map(|colon| authority + colon + 1);
        let web = word[..scheme].ends_with("http") || word[..scheme].ends_with("https");
        Some((colon.or(web.then_some(authority))?, at))
    });
    match hidden {
        Some((from, to)) => {
            out.push_str(&word[..from]);
            out.push_str(HIDDEN);
            out.push_str(&word[to..]);
        }
        None => out.push_str(word),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_kept() {
        let wrong: Vec<_> = [
            ("PASSWORD=s3cret run --fast", "PASSWORD=*** run --fast"),
            ("export DB_PASS='s3 cret'; ls", "export DB_PASS=***; ls"),
            ("TOKEN=s3\\ cret ls a\\ b", "TOKEN=*** ls a\\ b"),
            ("TOKEN=s3\\ c'r e't ls", "TOKEN=*** ls"),
            ("MYSQL_PWD=s3cret mysql", "MYSQL_PWD=*** mysql"),
            ("tool --password s3cret --host h", "tool --password *** --host h"),
            ("tool --api-key=s3cret x", "tool --api-key=*** x"),
            ("tool -password 's3 cret' x", "tool -password *** x"),
            ("mysql -u root -ps3cret db", "mysql -u root -p*** db"),
            ("/usr/bin/mysql -p db", "/usr/bin/mysql -p db"),
            ("ssh -p 22 host", "ssh -p 22 host"),
            ("sudo sshpass -p s3cret ssh h", "sudo sshpass -p *** ssh h"),
            ("curl -u me:s3cret http://h/", "curl -u *** http://h/"),
            ("curl --user=me:s3cret h", "curl --user=*** h"),
            ("curl -H 'Authorization: Bearer s3cret' h", "curl -H 'Authorization: Bearer ***' h"),
            ("curl -H Authorization:s3cret h", "curl -H Authorization:*** h"),
            ("curl 'http://h/?a=1&token=s3cret'", "curl 'http://h/?a=1&token=***'"),
            ("curl http://h/?a=1&token=s3cret", "curl http://h/?a=1&token=***"),
            ("git clone https://me:s3cret@h/x.git", "git clone https://me:***@h/x.git"),
            ("git clone https://s3cret@h/x", "git clone https://***@h/x"),
            ("git clone ssh://git@h/x", "git clone ssh://git@h/x"),
            ("psql postgres://u:s3cret@h:5432/db", "psql postgres://u:***@h:5432/db"),
            ("echo root:s3cret | chpasswd", "echo *** | chpasswd"),
            ("echo 'root:s3cret' | chpasswd", "echo *** | chpasswd"),
            ("chpasswd <<< root:s3cret", "chpasswd <<< root:***"),
            ("echo s3cret | passwd --stdin root", "echo *** | passwd --stdin root"),
            ("sh -c \"mysql -ps3cret -e 'select 1'\"", "sh -c \"mysql -p*** -e 'select 1'\""),
            ("sh -c \"TOKEN=s3cret rm -rf /\"", "sh -c \"TOKEN=*** rm -rf /\""),
            ("sh -c 'sh -c \"x --secret s3cret y\"'", "sh -c 'sh -c \"x --secret *** y\"'"),
            (r#"curl -d '{"password": "s3cret", "a": 1}' h"#, r#"curl -d '{"password": *** "a": 1}' h"#),
            (r#"curl -d '{"password":"s3cret"}' h"#, r#"curl -d '{"password":***' h"#),
            ("mount -o username=u,password=s3cret //h /m", "mount -o username=u,password=*** //h /m"),
            ("openssl rsa -passin pass:s3cret", "openssl rsa -passin ***"),
            ("password = s3cret\nnext", "password = ***\nnext"),
            ("ConvertTo-SecureString 's3cret' -AsPlainText", "ConvertTo-SecureString *** -AsPlainText"),
            ("tool --password; ls -l", "tool --password; ls -l"),
            ("cd $PWD && PWD=/x OLDPWD=/y ls", "cd $PWD && PWD=/x OLDPWD=/y ls"),
            ("apt-get install -y vim # author=me", "apt-get install -y vim # author=me"),
            ("", ""),
        ]
        .into_iter()
        .map(|(line, kept)| (line, redact_command_line(line).into_owned(), kept))
        .filter(|(_, became, kept)| became != kept)
        .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Lines in which the rules find something, and nearly find something.
    fn shell_like() -> impl Strategy<Value = String> {
        let pick = |texts: &[&'static str]| proptest::sample::select(texts.to_vec()).prop_map(str::to_owned);
        let word = prop_oneof![
            pick(&FLAGS.map(|(program, ..)| program)),
            pick(&FLAGS.map(|(_, flag, _)| flag)),
            pick(&TELLING),
            pick(&TELLING_WORDS),
            pick(&["api-", "Key", "PASS_", "wd", "https://", "u:x@h", "chpass", "--std", "in", "echo"]),
            "[a-zA-Z0-9='\": \\\\&|;@/._-]{0,6}",
            "\\PC{0,3}",
        ];
        (proptest::collection::vec(word, 0..12), "[ '\"=_-]?")
            .prop_map(|(words, between)| words.join(&between))
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(line in "\\PC*") {
            let _ = redact_command_line(&line);
        }

        #[test]
        fn shell_like_rubbish_too(line in "[a-z='\": \\\\&|;@/-]{0,60}") {
            let _ = redact_command_line(&line);
        }

        #[test]
        fn reading_again_settles(line in shell_like()) {
            // Where a quote is never closed, what stands for a secret may end it, and the next reading
            // hides more; each hides a word at least, so that it comes to an end.
            let mut read = read_all(&line);
            for _ in 0..line.len() {
                let again = read_all(&read);
                if again == read {
                    return Ok(());
                }
                read = again;
            }
            prop_assert!(line.is_empty() || read_all(&read) == read, "{} goes on as {}", line, read);
        }

        #[test]
        fn no_line_is_innocent_that_would_be_changed(line in shell_like()) {
            if innocent::is_innocent(&line) {
                prop_assert_eq!(read_all(&line), line);
            }
        }

        #[test]
        fn a_named_secret_never_stays(
            secret in "[A-Z0-9]{8,20}",
            form in prop_oneof![
                Just("x --password {} y"), Just("x --token={} y"), Just("API_KEY={} x"), Just("x -d '{\"secret\":\"{}\"}'"),
                Just("sh -c \"x --passwd {}\""), Just("ftp://u:{}@h/"), Just("it's --password {}"),
            ],
        ) {
            let line = form.replace("{}", &secret);
            let kept = redact_command_line(&line);
            prop_assert!(!kept.contains(&secret), "{} became {}", line, kept);
        }
    }
}
